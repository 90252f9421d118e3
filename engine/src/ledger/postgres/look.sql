-- $1 the line, $2 ids. Answers the rows that are there, in no order.
SELECT id, position, attempts, sequence::text, key, result::text, result_text, result_bytes, created, processing, processed
FROM conga_record
WHERE line = $1 AND id = ANY ($2::text[])
