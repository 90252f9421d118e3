-- What every verb reads first.

-- name: load
SELECT head, next, last, cursor, term, lock_owner, lock_deadline, processed, output, recorded, dead, told, consumer_term,
    consumer, consumer_deadline, consumer_since, shape, in_place, flow, flow_since, rate, credit, credit_at
FROM line WHERE line = ?1;

-- name: number
SELECT line FROM line WHERE name = ?1;

-- name: add
INSERT INTO line (name) VALUES (?1) ON CONFLICT DO NOTHING;

-- name: save
UPDATE line SET head = ?2, cursor = ?3, processed = ?4, output = ?5, recorded = ?6, dead = ?7 WHERE line = ?1;

-- name: tell
UPDATE line SET told = ?2 WHERE line = ?1;

-- The clock was set back, and so are all deadlines.
-- name: set_back_owners
UPDATE owner SET deadline = max(0, deadline - ?2) WHERE line = ?1;

-- name: set_back_delays
UPDATE flight SET due = max(0, due - ?2) WHERE line = ?1 AND due < 9223372036854775806;

-- name: set_back_lock
UPDATE line SET lock_deadline = max(0, lock_deadline - ?2), consumer_deadline = max(0, consumer_deadline - ?2),
    credit_at = max(0, credit_at - ?2)
WHERE line = ?1;
