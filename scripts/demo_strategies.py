#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The Kvist authors
"""Lets a real model answer a question about a document once with each way of keeping keys and values, and prints what
each took and whether the answer is the same. Usage: demo_strategies.py PROGRAM MODEL DOCUMENT"""

import json
import subprocess
import sys
import tempfile

DOCUMENT_CHARACTERS = 2600  # some 700 tokens
QUESTION = "\n\nSay in two sentences what this is about."
OUTPUT_TOKENS = 48

# What it is, and the options that make it. {store}: a folder, the same for all of a run.
STRATEGIES = (
    ("static: memory for 8,192 tokens at once", ["--growth=static:max=8192"]),
    ("dynamic: room grows by a factor of 2", ["--growth=dynamic:initial=256,factor=2"]),
    ("predictive: room by the text's own steps", ["--growth=predictive:initial=256"]),
    ("exact: a block when it is needed", ["--growth=exact"]),
    ("q8: old tokens in 8 bits", ["--form=q8"]),
    ("q4: old tokens in 4 bits", ["--form=q4"]),
    ("retention: snapkv keeps a half", ["--retain=snapkv:keep=0.5"]),
    ("page selection: reads 256 tokens", ["--pages=256"]),
    ("streaming: a window of 512 that slides", ["--stream=window=512,overlap=128,sinks=4"]),
    ("disk tier, the first time", ["--tier=disk:{store},size=1G"]),
    ("disk tier, a new process", ["--tier=disk:{store},size=1G"]),
    ("more than memory: the rest on disk", ["--kv-memory=12M", "--tier=disk:{store}-small,size=1G"]),
)
COLUMNS = ("prompt, s", "reused", "tokens/s", "KV live, MiB", "committed", "same text")


def answer(program, model, prompt, options):
    command = [program, "generate", "-m", model, "--chat", "-p", prompt, "-n", str(OUTPUT_TOKENS), "--json", *options]
    return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)


def row_of(result, text):
    statistics = result["statistics"]
    mebibytes = lambda name: f"{statistics[name] / 2**20:.1f}"  # noqa: E731
    return (
        f"{statistics['prefill_ms'] / 1e3:.2f}",
        f"{statistics['reused_tokens']}",
        f"{statistics['decode_tokens_per_s']:.1f}",
        mebibytes("live_bytes"),
        mebibytes("committed_bytes"),
        "yes" if result["text"] == text else "no",
    )


def main(program, model, document):
    with open(document, encoding="utf-8") as file:
        prompt = file.read(DOCUMENT_CHARACTERS) + QUESTION
    text = answer(program, model, prompt, [])["text"]
    print(f"the answer, in f16: {' '.join(text.split())}\n")
    print(f"{'one answer, by strategy':<42}" + "".join(f"{column:>14}" for column in COLUMNS))
    with tempfile.TemporaryDirectory() as folder:
        for name, options in STRATEGIES:
            options = [option.format(store=f"{folder}/store") for option in options]
            cells = row_of(answer(program, model, prompt, options), text)
            print(f"{name:<42}" + "".join(f"{cell:>14}" for cell in cells), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
