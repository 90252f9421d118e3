-- Law 6: a lock for each role, and a term that grows with each change of hands.

-- name: take
UPDATE line SET term = ?2, lock_owner = ?3, lock_deadline = ?4 WHERE line = ?1;

-- name: give_up
UPDATE line SET lock_owner = NULL WHERE line = ?1;

-- name: take_consumer
UPDATE line SET consumer_since = iif(consumer_term = ?2, consumer_since, ?5), consumer_term = ?2, consumer = ?3,
    consumer_deadline = ?4 WHERE line = ?1;

-- Whose the term is stays known.
-- name: give_up_consumer
UPDATE line SET consumer_deadline = 0 WHERE line = ?1;
