-- What every verb reads first.

-- name: load
SELECT head, next, last, cursor, term, lock_owner, lock_deadline, processed, output, recorded, dead
FROM line WHERE line = ?1;

-- name: number
SELECT line FROM line WHERE name = ?1;

-- name: add
INSERT INTO line (name) VALUES (?1) ON CONFLICT DO NOTHING;
