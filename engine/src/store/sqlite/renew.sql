-- An owner's leases share its deadline: renewing one message costs the same as ten thousand.

-- name: deadline
SELECT deadline FROM owner WHERE line = ?1 AND owner = ?2;

-- name: blocking
SELECT f.position, f.attempt FROM line AS l JOIN flight AS f ON f.line = l.line AND f.position = l.head
WHERE l.line = ?1 AND f.owner = ?2;

-- name: alive
INSERT INTO owner (line, owner, deadline) VALUES (?1, ?2, ?3)
ON CONFLICT DO UPDATE SET deadline = excluded.deadline;

-- name: leave
DELETE FROM owner WHERE line = ?1 AND owner = ?2;

-- This and `leases` read all that is in flight, the window at most. They are for the rare cases that somebody died,
-- left or lost a reply, and an index for them would make each claim and each complete dearer.
-- name: free_leases
UPDATE flight SET owner = NULL WHERE line = ?1 AND owner = ?2;

-- name: leases
SELECT f.position, f.attempt, f.claimed, length(i.body), f.excused
FROM flight AS f JOIN input AS i ON i.place = (f.line << 48) + f.position
WHERE f.line = ?1 AND f.owner = ?2 ORDER BY f.position;

-- name: body
SELECT body FROM input WHERE place = ?1;
