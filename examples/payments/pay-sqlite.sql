-- One payment, in the line's own file. All of this, and the record of what it answers, is one transaction; nobody else writes
-- meanwhile, so there is nothing to lock.

-- What can never be paid is refused for good: a dead letter, with this reason.
SELECT conga_refuse('no such account')
WHERE (SELECT count(*) FROM account WHERE name IN (:payload ->> 'from', :payload ->> 'to')) < 2;

-- Two entries; none, if there is not enough to pay with.
WITH payment (amount) AS (SELECT CAST(round((:payload ->> 'amount') * 100) AS INTEGER)),
     side (account, amount) AS (
         SELECT :payload ->> 'from', -amount FROM payment UNION ALL SELECT :payload ->> 'to', amount FROM payment
     )
INSERT INTO entry (payment, account, amount)
SELECT :id, side.account, side.amount
FROM side, payment, account AS payer
WHERE payer.name = :payload ->> 'from' AND payment.amount BETWEEN 1 AND payer.balance;

UPDATE account SET balance = balance + entry.amount
FROM entry
WHERE entry.payment = :id AND entry.account = account.name;

-- The last statement that answers rows answers the result: here an object.
SELECT iif(EXISTS (SELECT 1 FROM entry WHERE payment = :id), 'paid', 'refused') AS state,
       (SELECT balance FROM account WHERE name = :payload ->> 'from') AS left;
