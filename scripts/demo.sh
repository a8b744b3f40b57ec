#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The Kvist authors
# The main job of the program, shown: a real model answers while its keys and values live in Kvist's store, in each
# form; then the same with and without the cache; and the numbers of it all in a table. Usage: demo.sh PROGRAM
set -euo pipefail
kvist=$1
model=smollm2
prompt='Explain in three sentences why the sky is blue.'
records=$(mktemp)
trap 'rm -f "$records"' EXIT

say() {
  if [ -t 1 ]; then printf '\n\033[1m%s\033[0m\n' "$*"; else printf '\n%s\n' "$*"; fi
}

# Shows a command and runs it.
show() {
  local words="$*"
  say "\$ kvist ${words/"$prompt"/"'$prompt'"}"
  "$kvist" "$@"
}

show inspect "$model"
show generate -m "$model" --chat -p "$prompt" -n 64 --form f16 --stats

say 'How caches grow: the designs of the article that Kvist grew from, beside ours, in the same scenarios'
"$kvist" bench growth --table comprehensive --rounds 1
"$kvist" bench growth --table comprehensive,append --rounds 1 --json >build/growth.jsonl
"$kvist" report build/growth.jsonl -o build/report

say 'What each form loses, on a text: this README (half a minute)'
show eval -m "$model" -f README.md --context 1024 --windows 1

say 'Measuring: each form of the cache, then with and without a cache ...'
for form in f16 q8 q4 q2 f32; do
  "$kvist" generate -m "$model" --chat -p "$prompt" -n 64 --form "$form" --json >>"$records"
done
"$kvist" bench speedup -m "$model" --json >>"$records"

python3 - "$records" <<'PYTHON'
import json
import sys


def print_table(title, columns, rows):
    print(f"\n{title:<28}" + "".join(f"{column:>14}" for column in columns))
    for name, cells in rows:
        print(f"{name:<28}" + "".join(f"{cell:>14}" for cell in cells))


records = [json.loads(line) for line in open(sys.argv[1])]
runs = {record["params"]["form"]: record for record in records if record.get("command") == "generate"}
statistics = [run["statistics"] for run in runs.values()]
first_text = next(iter(runs.values()))["text"]
print_table(
    "one answer, by form",
    runs,
    [
        ("prompt, tokens/s", [f"{s['prefill_tokens_per_s']:.1f}" for s in statistics]),
        ("output, tokens/s", [f"{s['decode_tokens_per_s']:.1f}" for s in statistics]),
        ("live KV, MiB", [f"{s['live_bytes'] / 2**20:.2f}" for s in statistics]),
        ("resident KV, MiB", [f"{s['resident_bytes'] / 2**20:.2f}" for s in statistics]),
        ("a static cache, MiB", [f"{s['static_bytes'] / 2**20:.0f}" for s in statistics]),
        ("same text as first", ["yes" if run["text"] == first_text else "no" for run in runs.values()]),
    ],
)

speedup = {}
for record in records:
    if record.get("bench") == "speedup":
        speedup.setdefault(record["params"]["tokens"], {})[record["metric"]] = record["value"]
print_table(
    "tokens generated",
    speedup,
    [
        ("with the cache, s", [f"{row['with_cache_ms'] / 1e3:.2f}" for row in speedup.values()]),
        ("recomputing all, s", [f"{row['without_cache_ms'] / 1e3:.2f}" for row in speedup.values()]),
        ("ratio", [f"{row['speedup']:.1f}" for row in speedup.values()]),
    ],
)
PYTHON
