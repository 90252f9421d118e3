-- $1 the line, $2 the id, $3 position, $4 attempts, $5 sequence by its digits, $6 key, $7 created, $8 processing, $9 how long
-- this transaction may be idle, $10 how long one statement of it may take, both in milliseconds. A row that nobody else sees yet, without a result: who comes with the same id
-- waits here until this transaction has ended. Answers nothing if there is a row.
INSERT INTO conga_record (line, id, position, attempts, sequence, key, created, processing)
VALUES ($1, $2, $3, $4, $5::text::numeric, $6, $7, $8)
ON CONFLICT (line, id) DO NOTHING
RETURNING set_config('idle_in_transaction_session_timeout', $9::text, true), set_config('statement_timeout', $10::text, true)
