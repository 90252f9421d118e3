-- $1 the line; then an array each: $2 ids, $3 positions, $4 attempts, $5 sequences by their digits, $6 keys, $7 forms (0 as
-- jsonb, 1 as jsonb and text, 2 as text, 3 as bytes), $8 texts, $9 bytes, $10 created, $11 processing.
-- As it is, it fails if any of the ids is there; with ON CONFLICT behind it, it leaves those out.
INSERT INTO conga_record
    (line, id, position, attempts, sequence, key, result, result_text, result_bytes, created, processing)
SELECT $1::text, r.id, r.position, r.attempts, r.sequence::numeric, r.key,
       CASE WHEN r.form < 2 THEN r.body::jsonb END,
       CASE WHEN r.form IN (1, 2) THEN r.body END,
       r.bytes, r.created, r.processing
FROM unnest($2::text[], $3::bigint[], $4::integer[], $5::text[], $6::text[], $7::smallint[], $8::text[], $9::bytea[],
            $10::timestamptz[], $11::timestamptz[])
     AS r (id, position, attempts, sequence, key, form, body, bytes, created, processing)
