#!/usr/bin/env bash
# Prints every answer as it is given, one JSON a line. With --all, those of the past first; with --once, no others.
set -euo pipefail
start=(-o end)
for option in "$@"; do
  case $option in
    --all) start=(-o beginning) ;;
    --once) start=(-o beginning -e) ;;
    *) echo "usage: ./outputs.sh [--all|--once]" >&2; exit 2 ;;
  esac
done
exec kcat -C -q -b "${KAFKA:-127.0.0.1:9092}" -t "${TOPIC_PREFIX:-}lifelong.outputs.v1" "${start[@]}" -f '%s\n'
