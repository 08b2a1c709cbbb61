#!/usr/bin/env bash
# Asks over the requests topic and prints the id under which the answer will stand on the outputs topic:
#   ./ask.sh '[{"role": "user", "content": "What does the Pro plan cost?"}]'
set -euo pipefail
messages=${1:?usage: ./ask.sh JSON_MESSAGES}
id="$(hostname)-$(date +%s)-$$"

printf '{"id":"%s","messages":%s}' "$id" "$(printf %s "$messages" | tr '\n' ' ')" |
  kcat -P -b "${KAFKA:-127.0.0.1:9092}" -t "${TOPIC_PREFIX:-}lifelong.requests.v1" -k "$id" \
    -X partitioner=murmur2_random -X acks=all
echo "$id"
