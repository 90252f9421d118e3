-- Law 6: one lock, and a term that grows with each change of hands.

-- name: take
UPDATE line SET term = ?2, lock_owner = ?3, lock_deadline = ?4 WHERE line = ?1;

-- name: give_up
UPDATE line SET lock_owner = NULL WHERE line = ?1;
