-- Law 1: first what is free again, lowest position first, then new messages from the input.

-- Whether something is free, due or orphaned; and until when the caller is taken to be alive.
-- name: look
SELECT
    EXISTS (SELECT 1 FROM flight WHERE line = ?1 AND owner IS NULL AND due IS NULL)
    OR EXISTS (SELECT 1 FROM flight WHERE line = ?1 AND due <= ?2)
    OR EXISTS (SELECT 1 FROM owner WHERE line = ?1 AND deadline <= ?2),
    (SELECT deadline FROM owner WHERE line = ?1 AND owner = ?3);

-- name: bury_owners
DELETE FROM owner WHERE line = ?1 AND deadline <= ?2 RETURNING owner;

-- Whether any message is to be handed out in small numbers, or alone. Mostly none is.
-- name: has_suspects
SELECT EXISTS (SELECT 1 FROM flight INDEXED BY flight_suspect WHERE line = ?1 AND crashes > 1);

-- What an owner holds.
-- name: hands
SELECT crashes FROM flight WHERE line = ?1 AND owner = ?2;

-- name: free_due
UPDATE flight SET due = NULL WHERE line = ?1 AND due <= ?2;

-- name: free_again
SELECT f.position, f.attempt, length(i.body), CASE WHEN length(i.body) <= ?2 THEN i.body END, f.excused, f.crashes
FROM flight AS f JOIN input AS i ON i.place = (f.line << 48) + f.position
WHERE f.line = ?1 AND f.owner IS NULL AND f.due IS NULL
ORDER BY f.position LIMIT ?3;

-- name: lease_again
UPDATE flight SET owner = ?3, attempt = ?4, claimed = ?5 WHERE line = ?1 AND position = ?2;

-- name: new
SELECT place - (?1 << 48), 0, length(body), CASE WHEN length(body) <= ?2 THEN body END, 0, 0
FROM input WHERE place >= ?4 AND place < ?5
ORDER BY place LIMIT ?3;

-- name: lease_new
INSERT INTO flight (line, position, attempt, owner, claimed)
SELECT ?1, place - (?1 << 48), 1, ?4, ?5 FROM input WHERE place >= ?2 AND place < ?3;

-- name: advance
UPDATE line SET next = ?2 WHERE line = ?1;
