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
UPDATE flight SET owner = NULL, excused = excused + 1, crashes = crashes + (crashes = ?3) WHERE line = ?1 AND owner = ?2;

-- name: most_blamed
SELECT coalesce(max(crashes), 0) FROM flight WHERE line = ?1 AND owner = ?2;

-- The first of what an owner holds, if what is free first is to be alone and waits for somebody to hold nothing.
-- name: in_the_way
SELECT position, attempt FROM flight WHERE line = ?1 AND owner = ?2
AND (SELECT f.crashes FROM flight AS f WHERE f.line = ?1 AND f.owner IS NULL AND f.due IS NULL ORDER BY f.position LIMIT 1) >= ?3
ORDER BY position LIMIT 1;

-- name: leases
SELECT f.position, f.attempt, f.claimed, length(i.body), f.excused, f.crashes
FROM flight AS f JOIN input AS i ON i.place = (f.line << 48) + f.position
WHERE f.line = ?1 AND f.owner = ?2 ORDER BY f.position;

-- name: body
SELECT body FROM input WHERE place = ?1;
