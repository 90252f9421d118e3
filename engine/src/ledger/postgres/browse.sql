-- $1 the line, $2 the last id of the page before ('' for the first), $3 how many. Answers rows by id.
SELECT id, position, attempts, sequence::text, key, result::text, result_text, result_bytes, created, processing, processed
FROM conga_record
WHERE line = $1 AND id > $2
ORDER BY id
LIMIT $3
