#!/bin/sh
# One session with curl, from submit to SVG: sh examples/curl.sh [FILE.svg]
# SWEETSPOT_URL names the service; by default that of `sweetspot up` on this machine.
set -eu
URL="${SWEETSPOT_URL:-http://127.0.0.1:8000}"
OUTPUT="${1:-curve.svg}"

ask() { curl --silent --show-error --fail-with-body "$@"; }
field() { python3 -c 'import json, sys; print(json.load(sys.stdin)[sys.argv[1]])' "$1"; }

# Submit a sweep. What was trained before, with the same spec and code, is not trained again.
id=$(ask "$URL/v1/sweeps" --json '{
  "name": "noise on digits",
  "base": {
    "dataset": {"name": "digits", "image_size": 16},
    "views": {"kind": "noise"},
    "pretrain": {"steps": 300},
    "tasks": [{"kind": "classification", "labels": 50}]
  },
  "axis": {"path": "views.sigma", "values": [0, 0.1, 0.2, 0.4, 0.7, 1.0, 1.6, 2.5]},
  "seeds": 2
}' | field id)
echo "$URL/v1/sweeps/$id"

# Wait for it. The service holds each request until the sweep is finished, or for 20 seconds.
state=queued
while [ "$state" = queued ] || [ "$state" = running ] || [ "$state" = cancelling ]; do
    sweep=$(ask "$URL/v1/sweeps/$id" --header 'Prefer: wait=20')
    state=$(printf '%s' "$sweep" | field state)
    echo "$state $(printf '%s' "$sweep" | field counts)"
done

# Fetch the curve: numbers, verdict, picture.
ask "$URL/v1/sweeps/$id/curve.csv"
ask "$URL/v1/sweeps/$id/curve" | python3 -c 'import json, sys
for task, verdict in json.load(sys.stdin)["verdicts"].items():
    print(task, verdict["words"], sep=": ")'
ask "$URL/v1/sweeps/$id/curve.svg" --output "$OUTPUT"
echo "$OUTPUT"
