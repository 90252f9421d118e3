-- What a person decides about dead letters.

-- name: letter
SELECT entry FROM dead WHERE line = ?1 AND position = ?2;

-- name: forget
DELETE FROM dead WHERE line = ?1 AND position = ?2;

-- name: count
UPDATE line SET dead = dead - ?2 WHERE line = ?1;
