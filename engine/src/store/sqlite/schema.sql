-- Schema version 10. Several lines live in one file; every table carries the line's number. Datetimes are integers:
-- microseconds since 1970, UTC. The view `records` writes them as text.
-- `place` is the line's number times 2^48, and the position: one integer is SQLite's own key of a row, and appending and
-- finding by it costs half of what a key of two columns does.

-- One row a line: its cursors, its leadership, and the counts that would otherwise need a scan.
CREATE TABLE line (
    line INTEGER PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    head INTEGER NOT NULL DEFAULT 1,      -- the lowest position not yet delivered
    next INTEGER NOT NULL DEFAULT 1,      -- the lowest position not yet claimed
    last INTEGER NOT NULL DEFAULT 0,      -- the highest position in the input
    cursor INTEGER NOT NULL DEFAULT 0,    -- the last cursor of `processed`
    term INTEGER NOT NULL DEFAULT 0,
    lock_owner TEXT,
    lock_deadline INTEGER NOT NULL DEFAULT 0,
    told INTEGER NOT NULL DEFAULT 0,      -- the time when a deadline was last set
    consumer_term INTEGER NOT NULL DEFAULT 0, -- the same as `term` and `lock` for the active consumer, and since when
    consumer TEXT,
    consumer_since INTEGER NOT NULL DEFAULT 0,
    consumer_deadline INTEGER NOT NULL DEFAULT 0,
    processed INTEGER NOT NULL DEFAULT 0, -- rows of each of these tables
    output INTEGER NOT NULL DEFAULT 0,
    recorded INTEGER NOT NULL DEFAULT 0,
    dead INTEGER NOT NULL DEFAULT 0,
    keep TEXT,                            -- how much stays, as a processor has last told
    safe INTEGER NOT NULL DEFAULT 1,      -- the grace period of records, as core's `partition/keep.rs` has it
    below INTEGER NOT NULL DEFAULT 1,
    until INTEGER NOT NULL DEFAULT 1,
    shape TEXT,                           -- what the line is, as core's `shape.rs` writes it, where that was set
    in_place INTEGER NOT NULL DEFAULT 0,  -- how many are delivered beyond the head, where not all messages keep their order
    flow TEXT NOT NULL DEFAULT 'running', -- what claims hand out, as core's `partition/control.rs` has it; and since when
    flow_since INTEGER NOT NULL DEFAULT 0,
    rate INTEGER,                         -- the interval between two messages in nanoseconds
    credit INTEGER NOT NULL DEFAULT 0,    -- of the rate: in nanoseconds, and when that was so
    credit_at INTEGER NOT NULL DEFAULT 0,
    missing INTEGER                       -- of the base of a merged line: since when the message at the head is missing
) STRICT;

-- What producers sent, until it is delivered.
CREATE TABLE input (
    place INTEGER PRIMARY KEY,
    body BLOB NOT NULL
) STRICT;

-- Those who number their messages: the last number accepted, the mark that came with it, the latest session and the
-- process that has it, and when they were last heard of.
CREATE TABLE producer (
    line INTEGER NOT NULL,
    producer TEXT NOT NULL,
    last INTEGER NOT NULL,
    mark INTEGER NOT NULL,
    session INTEGER NOT NULL,
    process INTEGER NOT NULL,
    heard INTEGER NOT NULL,
    PRIMARY KEY (line, producer)
) STRICT, WITHOUT ROWID;
CREATE INDEX producer_heard ON producer (line, heard, producer);

-- Until when each process is taken to be alive.
CREATE TABLE owner (
    line INTEGER NOT NULL,
    owner TEXT NOT NULL,
    deadline INTEGER NOT NULL,
    PRIMARY KEY (line, owner)
) STRICT, WITHOUT ROWID;

-- What is claimed and not yet done: leased where there is an owner, delayed where there is a due, else free.
CREATE TABLE flight (
    line INTEGER NOT NULL,
    position INTEGER NOT NULL,
    attempt INTEGER NOT NULL,
    owner TEXT,
    claimed INTEGER NOT NULL,
    due INTEGER,                          -- 2^63 - 1: as soon as the one before it with the same key is done;
                                          -- 2^63 - 2: the line is halted at it
    key BLOB,                             -- where order is by key
    excused INTEGER NOT NULL DEFAULT 0,   -- core's `partition/strikes.rs`
    crashes INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (line, position)
) STRICT, WITHOUT ROWID;
CREATE INDEX flight_key ON flight (line, key, position) WHERE key IS NOT NULL;
-- Both are empty as long as all goes well, so they cost a claim nothing.
CREATE INDEX flight_free ON flight (line, position) WHERE owner IS NULL AND due IS NULL;
CREATE INDEX flight_due ON flight (line, due) WHERE due IS NOT NULL;
CREATE INDEX flight_suspect ON flight (line, position) WHERE crashes > 1;

-- The system of record. `number` is only where the row is; the identity is (line, id).
CREATE TABLE record (
    number INTEGER PRIMARY KEY,
    line INTEGER NOT NULL,
    id TEXT NOT NULL,
    position INTEGER NOT NULL,
    sequence ANY,                         -- an integer; as text from 2^63 on
    key TEXT,
    attempts INTEGER NOT NULL,
    created INTEGER NOT NULL,
    processing INTEGER NOT NULL,
    processed INTEGER NOT NULL,
    sequencing INTEGER,
    sequenced INTEGER,
    dead TEXT,                            -- the reason, where there is no result
    payload ANY,                          -- JSON text; a blob for bytes that are no text. Last: it may be long
    UNIQUE (line, id)
) STRICT;
CREATE INDEX record_position ON record (line, position);

-- Done and not yet delivered: found by its place in the order by who delivers, and by `cursor`, the order in which it was
-- done, by who follows. `record` is the row's number there; a tombstone has `open` and `died`; a dead letter
-- that is kept out of the output has none of them.
CREATE TABLE processed (
    line INTEGER NOT NULL,
    position INTEGER NOT NULL,
    cursor INTEGER NOT NULL,
    record INTEGER,
    open TEXT,
    died INTEGER,
    key BLOB,                             -- as in `flight`
    PRIMARY KEY (line, position)
) STRICT, WITHOUT ROWID;
CREATE INDEX processed_key ON processed (line, key, position) WHERE key IS NOT NULL;
CREATE UNIQUE INDEX processed_cursor ON processed (line, cursor);

-- Delivered and not yet received.
CREATE TABLE output (
    place INTEGER PRIMARY KEY,
    body TEXT NOT NULL
) STRICT;

-- The dead letters, as they came in; `cursor` is the order in which they died.
CREATE TABLE dead (
    line INTEGER NOT NULL,
    position INTEGER NOT NULL,
    id TEXT NOT NULL,
    reason TEXT NOT NULL,
    attempts INTEGER NOT NULL,
    died INTEGER NOT NULL,
    cursor INTEGER NOT NULL DEFAULT 0,
    entry BLOB NOT NULL,
    open TEXT,                            -- the tombstone as far as it is written, while the line is halted at it
    PRIMARY KEY (line, position)
) STRICT, WITHOUT ROWID;
CREATE INDEX dead_halted ON dead (line) WHERE open IS NOT NULL;
CREATE INDEX dead_cursor ON dead (line, cursor);

-- The places that the base of a merged line has passed without a result.
CREATE TABLE passed (
    line INTEGER NOT NULL,
    position INTEGER NOT NULL,
    PRIMARY KEY (line, position)
) STRICT, WITHOUT ROWID;

-- For people.
CREATE VIEW records AS
SELECT line.name AS line, r.position, r.id, r.sequence, r.key, r.payload, r.dead, r.attempts,
    strftime('%Y-%m-%dT%H:%M:%S', r.created / 1000000, 'unixepoch') || printf('.%06dZ', r.created % 1000000) AS created,
    strftime('%Y-%m-%dT%H:%M:%S', r.processing / 1000000, 'unixepoch') || printf('.%06dZ', r.processing % 1000000) AS processing,
    strftime('%Y-%m-%dT%H:%M:%S', r.processed / 1000000, 'unixepoch') || printf('.%06dZ', r.processed % 1000000) AS processed,
    strftime('%Y-%m-%dT%H:%M:%S', r.sequencing / 1000000, 'unixepoch') || printf('.%06dZ', r.sequencing % 1000000) AS sequencing,
    strftime('%Y-%m-%dT%H:%M:%S', r.sequenced / 1000000, 'unixepoch') || printf('.%06dZ', r.sequenced % 1000000) AS sequenced
FROM record AS r JOIN line USING (line);
