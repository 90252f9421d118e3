-- What is over goes, the oldest first, a little at a time.

-- name: look
SELECT head, next, dead, output, recorded, keep, safe, below, until FROM line WHERE line = ?1;

-- name: tell
UPDATE line SET keep = ?2, safe = ?3, below = ?4, until = ?5 WHERE line = ?1;

-- name: count
UPDATE line SET recorded = recorded - ?2, dead = dead - ?3, output = output - ?4 WHERE line = ?1;

-- What is not delivered yet stays in any case: the window at most.
-- name: undelivered
SELECT count(*) FROM record WHERE line = ?1 AND position >= ?2;

-- name: records
SELECT number, position, coalesce(sequenced, processed) FROM record WHERE line = ?1 AND position < ?2 ORDER BY position LIMIT ?3;

-- name: forget_record
DELETE FROM record WHERE number = ?1;

-- In the order in which they died, but those at which the line is halted.
-- name: dead
SELECT position, died FROM dead WHERE line = ?1 AND open IS NULL ORDER BY cursor, position LIMIT ?2;

-- name: forget_dead
DELETE FROM dead WHERE line = ?1 AND position = ?2;

-- name: outputs
SELECT place FROM output WHERE place >= ?1 AND place <= ?2 ORDER BY place LIMIT ?3;

-- An output ends with the datetime of its delivery.
-- name: delivered
SELECT substr(body, -29, 27) FROM output WHERE place = ?1;

-- name: forget_output
DELETE FROM output WHERE place = ?1;

-- name: oldest_dead
SELECT died FROM dead WHERE line = ?1 ORDER BY cursor, position LIMIT 1;

-- name: oldest_output
SELECT substr(body, -29, 27) FROM output WHERE place >= ?1 AND place <= ?2 ORDER BY place LIMIT 1;
