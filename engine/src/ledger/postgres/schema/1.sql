-- The system of record of all lines. COLLATE "C": an id is compared byte by byte, whatever the database's language is, and
-- stays so when the system's libraries are renewed.
CREATE TABLE conga_record (
    -- The line's name; with a partition's number, as in orders.3, where a line has several.
    line text COLLATE "C" NOT NULL,
    id text COLLATE "C" NOT NULL,
    position bigint NOT NULL,
    attempts integer NOT NULL,
    sequence numeric(20),
    key text,
    -- The handler's result. Beside it, or in its place, what is not the same as jsonb: its text, or bytes that are none.
    result jsonb,
    result_text text,
    result_bytes bytea,
    created timestamptz NOT NULL,
    processing timestamptz NOT NULL,
    -- When it was recorded, by this server's clock.
    processed timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (line, id)
);
CREATE INDEX conga_record_position ON conga_record (line, position);
CREATE INDEX conga_record_processed ON conga_record (line, processed);
COMMENT ON TABLE conga_record IS 'Conga: one row for each message that has a result';
