-- Law 3: append to the output, advance the head, remove what is delivered; all of it or nothing.

-- name: waiting
SELECT r.number, r.id, r.position, r.sequence, r.key, r.attempts, r.created, r.processing, r.processed,
    r.sequencing, r.sequenced, r.dead, r.payload, p.position, p.open, p.died, p.cursor
FROM processed AS p LEFT JOIN record AS r ON r.number = p.record
WHERE p.line = ?1 AND p.position = ?2;

-- The same, from a position on.
-- name: ready
SELECT r.number, r.id, r.position, r.sequence, r.key, r.attempts, r.created, r.processing, r.processed,
    r.sequencing, r.sequenced, r.dead, r.payload, p.position, p.open, p.died, p.cursor
FROM processed AS p LEFT JOIN record AS r ON r.number = p.record
WHERE p.line = ?1 AND p.position >= ?2 ORDER BY p.position LIMIT ?3;

-- name: is_ready
SELECT EXISTS (SELECT 1 FROM line AS l JOIN processed AS p ON p.line = l.line AND p.position = l.head WHERE l.line = ?1);

-- name: deliver
INSERT INTO output (place, body) VALUES (?1, ?2);

-- name: delivered
UPDATE record SET sequencing = ?2, sequenced = ?3 WHERE number = ?1;

-- name: forget
DELETE FROM input WHERE place >= ?1 AND place < ?2;

-- name: remove
DELETE FROM processed WHERE line = ?1 AND position < ?2;
