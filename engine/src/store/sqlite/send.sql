-- Positions are given here, dense and by arrival: the line's row has the last one.

-- name: append
INSERT INTO input (place, body) VALUES (?1, ?2);

-- name: advance
UPDATE line SET last = ?2 WHERE line = ?1;
