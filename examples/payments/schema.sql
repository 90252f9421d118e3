-- A payment ledger with double entries: the entries of a payment make up for each other, so that the sum of all accounts never
-- changes.
CREATE TABLE account (
    name text PRIMARY KEY,
    balance numeric(20, 2) NOT NULL CHECK (balance >= 0)
);
CREATE TABLE entry (
    payment text NOT NULL,
    account text NOT NULL REFERENCES account,
    amount numeric(20, 2) NOT NULL,
    written timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (payment, account)
);
INSERT INTO account SELECT 'account-' || number, 100 FROM generate_series(1, 20) AS number;
