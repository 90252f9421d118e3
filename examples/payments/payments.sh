#!/bin/sh
# So many payments between the twenty accounts, as NDJSON; always the same ones. Usage: payments.sh COUNT
awk -v count="${1:-1000}" 'BEGIN {
    for (number = 1; number <= count; number++) {
        from = number * 7 % 20 + 1
        to = (from + number * 3 % 19) % 20 + 1
        amount = number * 31 % 9000 / 100 + 0.01
        printf "{\"id\":\"p%d\",\"payload\":{\"from\":\"account-%d\",\"to\":\"account-%d\",\"amount\":%.2f}}\n", number, from, to, amount
    }
}'
