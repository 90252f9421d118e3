-- Law 3: append to the output, advance the head, remove what is delivered; all of it or nothing.

-- name: waiting
SELECT r.number, r.id, r.position, r.sequence, r.key, r.attempts, r.created, r.processing, r.processed,
    r.sequencing, r.sequenced, r.dead, r.payload, p.position, p.open, p.died
FROM processed AS p LEFT JOIN record AS r ON r.number = p.record
WHERE p.line = ?1 AND p.cursor = ?2;

-- name: deliver
INSERT INTO output (line, position, body) VALUES (?1, ?2, ?3);

-- name: delivered
UPDATE record SET sequencing = ?2, sequenced = ?3 WHERE number = ?1;

-- name: remove
DELETE FROM processed WHERE line = ?1 AND cursor = ?2;

-- name: forget
DELETE FROM input WHERE line = ?1 AND position < ?2;

-- name: advance
UPDATE line SET head = ?2, processed = processed - ?3, output = output + ?4 WHERE line = ?1;
