-- name: follow
SELECT p.cursor, p.position, r.id, p.open, p.died
FROM processed AS p LEFT JOIN record AS r ON r.number = p.record
WHERE p.line = ?1 AND p.cursor > ?2 ORDER BY p.cursor LIMIT ?3;
