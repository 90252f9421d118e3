-- name: written
SELECT EXISTS (SELECT 1 FROM output WHERE line = ?1 AND position <= ?2);

-- name: acknowledge
DELETE FROM output WHERE line = ?1 AND position <= ?2;

-- name: advance
UPDATE line SET output = output - ?2 WHERE line = ?1;

-- name: oldest
SELECT body FROM output WHERE line = ?1 ORDER BY position LIMIT ?2;
