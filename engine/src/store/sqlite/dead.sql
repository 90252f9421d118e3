-- What a person decides about dead letters.

-- name: letter
SELECT entry, died, open FROM dead WHERE line = ?1 AND position = ?2;

-- name: forget
DELETE FROM dead WHERE line = ?1 AND position = ?2;

-- name: count
UPDATE line SET dead = dead - ?2 WHERE line = ?1;

-- The line was halted at it.
-- name: close
UPDATE dead SET open = NULL WHERE line = ?1 AND position = ?2;

-- It is free again; the attempts that it has had do not count any more.
-- name: again
UPDATE flight SET due = NULL, excused = attempt, crashes = 0 WHERE line = ?1 AND position = ?2;

-- name: let_go
DELETE FROM flight WHERE line = ?1 AND position = ?2;

-- name: append
INSERT INTO processed (line, cursor, position, open, died) VALUES (?1, ?2, ?3, ?4, ?5);
