#!/bin/sh
# The mutual information of two arrays, with curl: sh examples/estimate-mi.sh [FILE.npz]
# SWEETSPOT_URL names the service; by default that of `sweetspot up` on this machine. The npz holds x and y, [N, d] each, row i of
# one belonging to row i of the other; without one, pairs of Gaussians are made that share -8 log(1 - 0.47^2) = 2.00 nats.
set -eu
URL="${SWEETSPOT_URL:-http://127.0.0.1:8000}"
FILE="${1:-gaussians.npz}"

ask() { curl --silent --show-error --fail-with-body "$@"; }
field() { python3 -c 'import json, sys; print(json.load(sys.stdin)[sys.argv[1]])' "$1"; }

if [ $# -eq 0 ]; then
    python3 - "$FILE" <<'PYTHON'
import sys
import numpy as np

x, noise = np.random.default_rng(0).standard_normal((2, 5000, 16))
np.savez(sys.argv[1], x=x, y=0.47 * x + np.sqrt(1 - 0.47**2) * noise)
PYTHON
fi

# GET /v1/catalog/estimators has them all: what each one bounds, and when it may be believed.
id=$(ask "$URL/v1/mi-estimates" --form file=@"$FILE" --form estimators=infonce,nwj,leave_one_out,cca --form repeats=3 | field id)
echo "$URL/v1/mi-estimates/$id"

# Wait for it. The service holds each request until the estimate is finished, or for 20 seconds.
state=queued
while [ "$state" = queued ] || [ "$state" = running ] || [ "$state" = cancelling ]; do
    estimate=$(ask "$URL/v1/mi-estimates/$id" --header 'Prefer: wait=20')
    state=$(printf '%s' "$estimate" | field state)
    echo "$state $(printf '%s' "$estimate" | field progress)"
done

printf '%s' "$estimate" | python3 -c 'import json, sys
estimate = json.load(sys.stdin)
if estimate["results"] is None:
    sys.exit(str(estimate["error"]))
for name, found in estimate["results"]["mi"].items():
    print("%-15s %.3f ± %.3f nats" % (name, found["value"], found["stderr"]), found["kind"], found["caution"] or "")
print(estimate["results"]["verdict"])'
