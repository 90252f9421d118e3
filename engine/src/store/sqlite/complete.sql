-- Law 2: the end of a lease, only for the one who still has it.

-- name: end
DELETE FROM flight WHERE line = ?1 AND position = ?2 AND owner = ?3 AND attempt = ?4;

-- What an owner holds from a position up to another.
-- name: between
SELECT position, attempt FROM flight WHERE line = ?1 AND position >= ?2 AND position <= ?3 AND owner = ?4;

-- All of them: the caller has seen that they are its own.
-- name: end_run
DELETE FROM flight WHERE line = ?1 AND position >= ?2 AND position <= ?3;

-- name: held
SELECT 1 FROM flight WHERE line = ?1 AND position = ?2 AND owner = ?3 AND attempt = ?4;

-- Without a due it was given back, and else its handler has failed: core's `partition/strikes.rs`.
-- name: give_back
UPDATE flight SET owner = NULL, due = ?3, excused = excused + (?3 IS NULL), crashes = iif(?3 IS NULL, crashes, 0)
WHERE line = ?1 AND position = ?2;

-- name: halt
UPDATE flight SET owner = NULL, due = 9223372036854775806, excused = 0, crashes = 0 WHERE line = ?1 AND position = ?2;

-- name: record
INSERT INTO record (line, id, position, sequence, key, attempts, created, processing, processed, sequencing, sequenced, dead, payload)
VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?10, ?11, ?12)
ON CONFLICT (line, id) DO NOTHING;

-- An id that came in twice keeps the place in which it came first, whichever was done first.
-- name: recorded
UPDATE record SET position = min(position, ?3) WHERE line = ?1 AND id = ?2 RETURNING number, position;

-- name: bury
INSERT INTO dead (line, position, id, reason, attempts, died, cursor, open, entry)
SELECT ?1, ?2, ?3, ?4, ?5, ?6, ?8, ?9, body FROM input WHERE place = ?7;

-- name: append
INSERT INTO processed (line, cursor, position, record, open, died) VALUES (?1, ?2, ?3, ?4, ?5, ?6);

-- name: stored
SELECT number, id, position, sequence, key, attempts, created, processing, processed, sequencing, sequenced, dead, payload
FROM record WHERE number = ?1;
