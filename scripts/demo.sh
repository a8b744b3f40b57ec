#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The Kvist authors
# The main job of the program, shown: a real model answers while its keys and values live in Kvist's store; caches grow;
# the model answers with each strategy, with a table of memory, reuse and speed; what each loses; and how much a cache
# saves at all. Usage: demo.sh PROGRAM, from the project's root
set -euo pipefail
kvist=$1
model=smollm2
prompt='Explain in three sentences why the sky is blue.'

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

say 'One question about a document, with each way of keeping keys and values (a minute or two)'
python3 scripts/demo_strategies.py "$kvist" "$model" README.md

say 'What each loses: how far the predictions behind 1,024 tokens of this README are from those with everything in f32'
show eval -m "$model" -f README.md --form f16,q4 --retain snapkv,window,article-norm --keep 0.5 --pages 512 \
  --context 1024 --continuation 64 --windows 1

say 'With a cache, and recomputing everything for every token'
show bench speedup -m "$model"
