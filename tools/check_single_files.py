#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The Kvist authors
"""Checks that each file of the engine, the program and the benchmarks compiles by itself.

The build compiles several files of a folder together (KVIST_UNITY), so a missing #include goes unnoticed there. (The
library's files and tests are compiled one at a time by the tsan preset.) Usage: check_single_files.py FOLDER, of a
build that was configured with -DKVIST_UNITY=OFF; exits with 1 and what the compiler says of the first files at fault.
"""

import concurrent.futures
import json
import os
import pathlib
import shlex
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parents[1]
FOLDERS = ("src/model/", "src/engine/", "apps/", "bench/")


def check(entry):
    command = [word for word in shlex.split(entry["command"]) if word not in ("-O3", "-g")]
    command = command[: command.index("-o")] + ["-fsyntax-only", entry["file"]]
    return subprocess.run(command, cwd=entry["directory"], capture_output=True, text=True, check=False)


def main(folder):
    entries = {}
    for entry in json.loads((pathlib.Path(folder) / "compile_commands.json").read_text()):
        path = os.path.relpath(entry["file"], ROOT)
        if path.startswith(FOLDERS) and not path.endswith("_test.cc"):
            entries[path] = entry
    if not entries:
        sys.exit(f"{folder} has no such files; configure it with -DKVIST_UNITY=OFF and the engine")
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        faults = [result for result in pool.map(check, entries.values()) if result.returncode != 0]
    for fault in faults[:3]:
        print(fault.stderr)
    print(f"{len(entries) - len(faults)} of {len(entries)} files compile by themselves.")
    return 1 if faults else 0


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    sys.exit(main(sys.argv[1]))
