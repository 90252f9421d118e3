-- The counts are in the line's row; nothing here grows with the backlog or the record.

-- name: blocker
SELECT attempt, owner, claimed, due FROM flight WHERE line = ?1 AND position = ?2;

-- name: halted
SELECT id, reason, died FROM dead WHERE line = ?1 AND position = ?2;

-- name: count_halted
SELECT count(*) FROM dead INDEXED BY dead_halted WHERE line = ?1 AND open IS NOT NULL;

-- name: processors
SELECT owner FROM owner WHERE line = ?1 AND deadline > ?2 ORDER BY owner;

-- name: producers
SELECT count(*) FROM producer WHERE line = ?1;
