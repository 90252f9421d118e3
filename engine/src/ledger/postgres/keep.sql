-- $1 the line, $2 the id, $3 form (0 as jsonb, 1 as jsonb and text, 2 as text, 3 as bytes), $4 text, $5 bytes. Gives the row
-- that this transaction took its result. Answers no row if it is another transaction by now.
UPDATE conga_record
SET result = CASE WHEN $3::smallint < 2 THEN $4::text::jsonb END,
    result_text = CASE WHEN $3::smallint IN (1, 2) THEN $4::text END,
    result_bytes = $5,
    processed = clock_timestamp()
WHERE line = $1 AND id = $2 AND xmin = pg_current_xact_id()::xid
