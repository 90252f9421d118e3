-- What is asked of all processors at once. Each claim reads it with the line's row.

-- name: flow
UPDATE line SET flow = ?2, flow_since = ?3 WHERE line = ?1;

-- name: rate
UPDATE line SET rate = ?2 WHERE line = ?1;

-- name: bucket
UPDATE line SET credit = ?2, credit_at = ?3 WHERE line = ?1;
