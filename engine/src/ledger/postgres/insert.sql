-- $1 the line; then an array each, all of one length: $2 ids, $3 positions, $4 attempts, $5 sequences by their digits, $6 keys,
-- $7 forms (0 as jsonb, 1 as jsonb and text, 2 as text, 3 as bytes), $8 texts, $9 bytes, $10 created, $11 processing.
-- As it is, it fails if any of the ids is there; with ON CONFLICT behind it, it leaves those out.
-- The arrays stand in the list and not behind FROM, where the server would first copy each of them into a store of its own.
INSERT INTO conga_record
    (line, id, position, attempts, sequence, key, result, result_text, result_bytes, created, processing)
SELECT $1::text, r.id, r.position, r.attempts, r.sequence::numeric, r.key,
       CASE WHEN r.form < 2 THEN r.body::jsonb END,
       CASE WHEN r.form IN (1, 2) THEN r.body END,
       r.bytes, r.created, r.processing
FROM (SELECT unnest($2::text[]) AS id, unnest($3::bigint[]) AS position, unnest($4::integer[]) AS attempts,
             unnest($5::text[]) AS sequence, unnest($6::text[]) AS key, unnest($7::smallint[]) AS form,
             unnest($8::text[]) AS body, unnest($9::bytea[]) AS bytes,
             unnest($10::timestamptz[]) AS created, unnest($11::timestamptz[]) AS processing) AS r
