#!/usr/bin/env bash
# Publishes the purchases of a CSV file over HTTP: publish.sh http://localhost:8001 bought purchases.csv
# The answer comes when Kafka has stored the events. A send that fails may be repeated: an event with the same id is counted once.
set -euo pipefail
url=$1 event=$2 file=$3
while mapfile -t -n 500 lines && ((${#lines[@]})); do
    printf '%s\n' "${lines[@]}" |
        awk -F, -v event="$event" '
            { gsub(/[\\"]/, "\\\\&")
              printf "%s{\"type\":\"%s\",\"data\":{\"order\":\"%s\",\"at\":\"%s\",\"customer\":\"%s\",\"cds\":%s,\"dollars\":%s}}", (NR > 1 ? "," : "["), event, $1, $2, $3, $4, $5 }
            END { print "]" }' |
        curl --silent --show-error --fail-with-body --retry 5 --retry-connrefused --data-binary @- "$url/events" >/dev/null
done < <(tail -n +2 "$file")
