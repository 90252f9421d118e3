-- Pages by key, so that the last page costs what the first one does.

-- name: records
SELECT number, id, position, sequence, key, attempts, created, processing, processed, sequencing, sequenced, dead, payload
FROM record WHERE line = ?1 AND id >= ?2 ORDER BY id LIMIT ?3;

-- name: dead
SELECT position, id, reason, attempts, died, entry, open IS NOT NULL FROM dead WHERE line = ?1 AND position >= ?2 ORDER BY position LIMIT ?3;
