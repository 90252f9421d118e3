-- One payment, as in {"id":"p1","payload":{"from":"account-1","to":"account-2","amount":12.50}}. All of this, and the record of
-- what it answers, is one transaction.

-- Both accounts, in one order, so that no two payments wait for each other.
SELECT FROM account WHERE name IN (:payload->>'from', :payload->>'to') ORDER BY name FOR UPDATE;

-- Two entries; none, if there is not enough to pay with. An account that there is not is an error: all is rolled back, and the
-- payment ends as a dead letter.
INSERT INTO entry (payment, account, amount)
SELECT :id, side.account, side.amount
FROM account AS payer,
     (VALUES (:payload->>'from', -(:payload->>'amount')::numeric),
             (:payload->>'to', (:payload->>'amount')::numeric)) AS side (account, amount)
WHERE payer.name = :payload->>'from'
  AND (:payload->>'amount')::numeric BETWEEN 0.01 AND payer.balance;

UPDATE account SET balance = balance + entry.amount
FROM entry
WHERE entry.payment = :id AND entry.account = account.name;

-- The last statement that answers rows answers the result: here an object.
SELECT CASE WHEN EXISTS (SELECT FROM entry WHERE payment = :id) THEN 'paid' ELSE 'refused' END AS state,
       (SELECT balance FROM account WHERE name = :payload->>'from') AS left;
