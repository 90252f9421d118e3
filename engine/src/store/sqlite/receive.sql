-- name: written
SELECT EXISTS (SELECT 1 FROM output WHERE place >= ?1 AND place <= ?2);

-- name: acknowledge
DELETE FROM output WHERE place >= ?1 AND place <= ?2;

-- name: advance
UPDATE line SET output = output - ?2 WHERE line = ?1;

-- name: oldest
SELECT body FROM output WHERE place >= ?1 AND place <= ?2 ORDER BY place LIMIT ?3 OFFSET ?4;
