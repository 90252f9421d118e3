#!/bin/sh
# A thousand payments by three processors, one of which is killed in the midst, and then again one. Then: is every payment there
# once, is the sum what it was, and did all come out in order?
#
# Usage: run.sh postgres://USER@HOST/DATABASE     an empty database: createdb payments
set -eu
here=$(cd "$(dirname "$0")" && pwd)
database=${1:?"usage: run.sh postgres://USER@HOST/DATABASE (an empty database)"}
conga=${CONGA:-conga}
export CONGA_RECORD="$database"
work=$(mktemp -d)
export CONGA_STORE="${CONGA_STORE:-sqlite:$work/conga.db}"

ask() { psql -X -q -A -t -v ON_ERROR_STOP=1 "$database" "$@"; }
process() { "$conga" process --line payments --handler "sql:$here/pay.sql" 2>>"$work/log" & }

processors=
end() {
    for process in $processors; do kill "$process" 2>/dev/null || true; done
    wait
    rm -rf "$work"
}
trap end EXIT

ask -f "$here/schema.sql"
before=$(ask -c 'SELECT sum(balance) FROM account')
sh "$here/payments.sh" 1000 >"$work/payments.ndjson"

for _ in 1 2 3; do process; processors="$processors $!"; done
"$conga" send --line payments "$work/payments.ndjson"
"$conga" receive --line payments --count 200 >"$work/out.ndjson"
for round in 1 2; do
    first=${processors# }
    first=${first%% *}
    kill -9 "$first"
    process
    processors="${processors#* "$first"} $!"
    "$conga" receive --line payments --count $((round * 200)) >>"$work/out.ndjson"
done
"$conga" receive --line payments --count 200 >>"$work/out.ndjson"
# What was sent a second time counts once.
"$conga" send --line payments "$work/payments.ndjson"

"$conga" verify --line payments "$work/out.ndjson" --sent "$work/payments.ndjson" --count 1000
paid=$(grep -c '"state":"paid"' "$work/out.ndjson")
echo "paid: $paid; refused, for there was not enough: $((1000 - paid))"
echo "payments with two entries: $(ask -c 'SELECT count(*) FROM (SELECT FROM entry GROUP BY payment HAVING count(*) = 2 AND sum(amount) = 0) AS whole')"
echo "entries: $(ask -c 'SELECT count(*) FROM entry')"
echo "the sum of all accounts: $before before, $(ask -c 'SELECT sum(balance) FROM account') after"
test "$(ask -c 'SELECT count(*) FROM entry')" = $((2 * paid))
test "$(ask -c 'SELECT sum(balance) FROM account')" = "$before"
test "$(ask -c "SELECT count(*) FROM conga_record WHERE line = 'payments'")" = 1000
