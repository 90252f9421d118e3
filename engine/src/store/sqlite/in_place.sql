-- Where not all messages keep their order: what is done goes out wherever it stands. Of each key the first that is not
-- delivered is in `flight`, for if it were done it would be delivered.

-- name: key
SELECT key FROM flight WHERE line = ?1 AND position = ?2;

-- By the key's position the planner would rather walk along all that is in flight.
-- name: first
SELECT position, due FROM flight INDEXED BY flight_key WHERE line = ?1 AND key = ?2 ORDER BY position LIMIT 1;

-- name: new
SELECT place - (?1 << 48), length(body), body FROM input WHERE place >= ?2 AND place < ?3 ORDER BY place;

-- name: fly
INSERT INTO flight (line, position, attempt, owner, claimed, due, key) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7);

-- name: unpark
UPDATE flight SET due = NULL WHERE line = ?1 AND position = ?2;

-- name: append
INSERT INTO processed (line, cursor, position, record, open, died, key) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7);

-- name: recorded
SELECT r.number, r.position, r.sequenced IS NOT NULL, p.key
FROM record AS r LEFT JOIN processed AS p ON p.line = r.line AND p.position = r.position WHERE r.line = ?1 AND r.id = ?2;

-- name: take_over
UPDATE record SET position = ?2 WHERE number = ?1;

-- What waits of a key, below a position.
-- name: ready
SELECT r.number, r.id, r.position, r.sequence, r.key, r.attempts, r.created, r.processing, r.processed,
    r.sequencing, r.sequenced, r.dead, r.payload, p.position, p.open, p.died, p.cursor
FROM processed AS p INDEXED BY processed_key LEFT JOIN record AS r ON r.number = p.record
WHERE p.line = ?1 AND p.key = ?2 AND p.position < ?3 ORDER BY p.position LIMIT 100;

-- name: remove
DELETE FROM processed WHERE line = ?1 AND position = ?2;

-- name: last_output
SELECT max(place) FROM output WHERE place >= ?1 AND place <= ?2;

-- name: head
SELECT (SELECT min(position) FROM flight WHERE line = ?1), (SELECT min(position) FROM processed WHERE line = ?1);

-- name: save
UPDATE line SET in_place = ?2 WHERE line = ?1;

-- The place of the output of a position, among the oldest.
-- name: find_output
SELECT place FROM (SELECT place, body FROM output WHERE place >= ?1 AND place <= ?2 ORDER BY place LIMIT ?3)
WHERE substr(body, 1, length(?4)) = ?4 LIMIT 1;

-- name: undelivered
SELECT count(*) FROM record WHERE line = ?1 AND position >= ?2 AND sequenced IS NULL;

-- name: oldest_record
SELECT sequenced FROM record WHERE line = ?1 AND sequenced IS NOT NULL ORDER BY position LIMIT 1;
