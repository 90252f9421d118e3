-- A handler's effect, amidst the step that completes its message.

-- name: has_result
SELECT 1 FROM record WHERE line = ?1 AND id = ?2;

-- name: begin
SAVEPOINT conga_effect;

-- name: keep
RELEASE conga_effect;

-- name: undo
ROLLBACK TO conga_effect;
