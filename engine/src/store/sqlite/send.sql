-- Positions are given here, dense and by arrival: the line's row has the last one.

-- name: append
INSERT INTO input (place, body) VALUES (?1, ?2);

-- name: advance
UPDATE line SET last = ?2 WHERE line = ?1;

-- name: known
SELECT last, mark, session, process FROM producer WHERE line = ?1 AND producer = ?2;

-- name: remember
INSERT INTO producer (line, producer, last, mark, session, process, heard) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)
ON CONFLICT DO UPDATE SET last = excluded.last, mark = excluded.mark, session = excluded.session,
    process = excluded.process, heard = excluded.heard;

-- A few of those that were not heard of for long, the longest first.
-- name: forget
DELETE FROM producer WHERE line = ?1 AND producer IN (
    SELECT producer FROM producer WHERE line = ?1 AND heard <= ?2 ORDER BY heard, producer LIMIT ?3);
