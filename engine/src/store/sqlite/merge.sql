-- Law 3, at the base of a merged line: append what came out of the partitions, advance the head; all of it or nothing.

-- name: missing
SELECT missing FROM line WHERE line = ?1;

-- name: advance
UPDATE line SET head = ?2, next = ?2, last = max(last, ?2 - 1), output = ?3, missing = ?4 WHERE line = ?1;

-- name: pass
INSERT INTO passed (line, position) VALUES (?1, ?2) ON CONFLICT DO NOTHING;

-- name: forget_passed
DELETE FROM passed WHERE line = ?1
    AND position <= (SELECT position FROM passed WHERE line = ?1 ORDER BY position DESC LIMIT 1 OFFSET ?2);

-- name: take_passed
DELETE FROM passed WHERE line = ?1 AND position = ?2;

-- name: bury
INSERT INTO dead (line, position, id, reason, attempts, died, cursor, entry) VALUES (?1, ?2, ?3, ?4, 0, ?5, ?6, CAST(?7 AS BLOB));

-- name: count_dead
UPDATE line SET dead = dead + 1, cursor = cursor + 1 WHERE line = ?1;
