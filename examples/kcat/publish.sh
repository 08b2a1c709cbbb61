#!/usr/bin/env bash
# Publishes one event, whose data comes on standard input as JSON:
#   ./publish.sh TYPE KEY < data.json
# KEY is the ordering unit: a user, a task, a tenant. Events of one key are learned in order.
set -euo pipefail
type=${1:?usage: ./publish.sh TYPE KEY < data.json}
key=${2:?usage: ./publish.sh TYPE KEY < data.json}

# kcat takes each line for a message. Inside JSON strings a line break is \n, so this changes nothing else.
tr '\n' ' ' | kcat -P -b "${KAFKA:-127.0.0.1:9092}" -t "${TOPIC_PREFIX:-}lifelong.events.v1" -k "$key" \
  -X partitioner=murmur2_random -X acks=all \
  -H ce_specversion=1.0 \
  -H "ce_id=$(hostname)-$(date +%s)-$$" \
  -H ce_source=/examples/kcat \
  -H "ce_type=$type" \
  -H "ce_time=$(date -u +%Y-%m-%dT%H:%M:%SZ)" \
  -H content-type=application/json
