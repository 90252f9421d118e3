-- What the line is, told once.

-- name: set
UPDATE line SET shape = ?2 WHERE line = ?1;
