-- The same ledger in the line's own file (SQLite): amounts in cents. Its tables stand beside Conga's.
CREATE TABLE account (
    name TEXT PRIMARY KEY,
    balance INTEGER NOT NULL CHECK (balance >= 0)
) STRICT;
CREATE TABLE entry (
    payment TEXT NOT NULL,
    account TEXT NOT NULL REFERENCES account,
    amount INTEGER NOT NULL,
    PRIMARY KEY (payment, account)
) STRICT;
WITH RECURSIVE numbers (number) AS (SELECT 1 UNION ALL SELECT number + 1 FROM numbers WHERE number < 20)
INSERT INTO account SELECT 'account-' || number, 10000 FROM numbers;
