#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The Kvist authors
"""Compares Kvist with llama.cpp on this machine; README.md beside this file says what is measured and what it takes.

llama_build.py gets and compiles llama.cpp; llama_speed.py, llama_quality.py and llama_tiers.py measure; peer.py is what
they share.
Needs Python 3.11, a compiler, CMake and pip, as Kvist's own build does.
"""

import argparse
import os
import pathlib
import sys
import tempfile

sys.dont_write_bytecode = True
import llama_build  # noqa: E402
import llama_quality  # noqa: E402
import llama_speed  # noqa: E402
import llama_tiers  # noqa: E402
from kv_types import BITS, parse_types  # noqa: E402
from peer import DEFAULT_KVIST, Kvist, PeerError, at_least, cpu_flags, native_isa, run_main, write_records  # noqa: E402

QUICK_DEPTHS = "0,8064"
QUICK_TYPES = "f16,q8_0"
QUICK_LENGTHS = "1024,4096"
BENCH_TYPES = tuple(name for name in BITS if name != "f32")  # llama-bench knows no f32


def command_build(arguments):
    print(llama_build.build(arguments.folder, arguments.jobs).programs)


def command_speed(arguments):
    depths = counts(arguments.depths or (QUICK_DEPTHS if arguments.quick else "0,1024,4096,8064"), "--depths")
    types = parse_types(arguments.types or (QUICK_TYPES if arguments.quick else "f16,q8_0,q4_0"), BENCH_TYPES)
    kvist = Kvist(arguments.kvist)
    bench_to_tokens = {"decode": arguments.tokens, "prefill": arguments.prefill_tokens}
    asked = {bench: tokens for bench, tokens in bench_to_tokens.items() if tokens > 0}
    if not asked:
        raise PeerError("--tokens 0 and --prefill-tokens 0 leave nothing to measure; give one of them a number.")
    setting = llama_speed.Setting(kvist.model(arguments.model), asked, arguments.threads, arguments.rounds)
    llama_speed.cases_of(depths, setting)  # what can't be measured is told before llama.cpp is built
    llama = llama_build.build(arguments.folder, arguments.jobs)
    contestants = llama_speed.contestants_of(kvist, arguments.forms, llama.programs / "llama-bench", types)
    origins = origins_of(kvist)
    samples = []
    try:
        for sample in llama_speed.measure(contestants, depths, setting):
            samples.append(sample)
    finally:  # minutes of measuring are not lost when something stops it
        if samples:
            show(arguments, llama_speed.report_of(samples, setting), llama_speed.records_of(samples, origins))


def command_quality(arguments):
    text = pathlib.Path(arguments.text)
    if not text.is_file():
        raise PeerError(f"There is no text {text}; give -f a file of plain text, a book for example.")
    types = parse_types(arguments.types)
    kvist = Kvist(arguments.kvist)
    model = kvist.model(arguments.model)
    setting = llama_quality.Setting(model, str(text), arguments.context, arguments.chunks, arguments.threads)
    llama = llama_build.build(arguments.folder, arguments.jobs)
    origins = origins_of(kvist)
    rows = []
    try:
        rows.extend(llama_quality.measure_kvist(kvist, setting, arguments.forms))
        for row in llama_quality.measure_llama(llama, setting, types):
            rows.append(row)
    finally:  # as above
        if rows:
            show(arguments, llama_quality.report_of(rows, setting), llama_quality.records_of(rows, origins))


def command_tiers(arguments):
    lengths = counts(arguments.lengths or (QUICK_LENGTHS if arguments.quick else "1024,2048,4096,8064"), "--lengths")
    types = parse_types(arguments.types or ("f16" if arguments.quick else "f16,q8_0,q4_0"), BENCH_TYPES)
    forms = (arguments.forms or ("f16,q4" if arguments.quick else "f16,q8,q4")).split(",")
    kvist = Kvist(arguments.kvist)
    model = kvist.model(arguments.model)
    with tempfile.TemporaryDirectory(prefix="kvist-peers-", dir=arguments.store) as folder:
        setting = llama_tiers.Setting(model, lengths, arguments.threads, arguments.rounds, folder)
        llama_tiers.check_lengths(setting)
        llama = llama_build.build(arguments.folder, arguments.jobs)
        contestants = llama_tiers.contestants_of(kvist, forms, llama.programs / "llama-server", types)
        origins = origins_of(kvist)
        samples = []
        try:
            for sample in llama_tiers.measure(contestants, setting):
                samples.append(sample)
        finally:  # as above
            if samples:
                records = llama_tiers.records_of(samples, setting, origins)
                show(arguments, llama_tiers.report_of(samples, setting), records)


def origins_of(kvist):
    """What made the results of each."""
    ours = kvist.origin()
    return {"kvist": ours, "llama.cpp": {**ours, "isa": native_isa(cpu_flags()), "commit": llama_build.COMMIT}}


def show(arguments, report, records):
    """The report; with --json the records, and the report where it doesn't mix with them."""
    if arguments.json:
        write_records(records)
    print(report, file=sys.stderr if arguments.json else sys.stdout, flush=True)


# --- arguments ---


def counts(text, option):
    try:
        values = [int(value) for value in text.split(",")]
    except ValueError:
        values = [-1]
    if min(values) < 0:
        raise PeerError(f"{option} takes numbers of tokens with commas between them, and '{text}' is not that.")
    return values


def parse(arguments):
    parser = argparse.ArgumentParser(description="Compares Kvist with llama.cpp on this machine (README.md beside it).")
    commands = parser.add_subparsers(dest="command", required=True, metavar="build | speed | quality | tiers")
    build = commands.add_parser("build", help="only get and compile llama.cpp (the others do it by themselves)")
    build.set_defaults(run=command_build)
    speed = commands.add_parser("speed", help="decode and prefill at depth, in turns")
    speed.set_defaults(run=command_speed)
    quality = commands.add_parser("quality", help="KL divergence of stored forms on a text")
    quality.set_defaults(run=command_quality)
    tiers = commands.add_parser("tiers", help="prompts kept on disk and in memory, in turns")
    tiers.set_defaults(run=command_tiers)
    for command in (build, speed, quality, tiers):
        add_build_options(command)
    for command in (speed, quality, tiers):
        add_shared_options(command)
    add_speed_options(speed)
    add_quality_options(quality)
    add_tiers_options(tiers)
    return parser.parse_args(arguments)


def add_build_options(command):
    folder = llama_build.DEFAULT_FOLDER
    command.add_argument("--folder", type=pathlib.Path, default=folder, help="where llama.cpp is kept (%(default)s)")
    jobs = os.cpu_count() or 1
    command.add_argument("--jobs", type=at_least(1), default=jobs, help="cores that compile llama.cpp (%(default)s)")


def add_shared_options(command):
    command.add_argument("-m", "--model", required=True, help="GGUF file, or name of a model that kvist fetched")
    command.add_argument("--kvist", default=str(DEFAULT_KVIST), metavar="PATH", help="the program (%(default)s)")
    command.add_argument("--threads", type=at_least(1), default=2, help="of both (%(default)s)")
    command.add_argument(
        "--json", action="store_true", help="print records (docs/results.schema.json), tables to stderr"
    )


def add_speed_options(speed):
    speed.add_argument("--depths", metavar="N,N,...", help="tokens that are there before (0,1024,4096,8064)")
    speed.add_argument(
        "--types", metavar="T,T,...", help="llama.cpp's keys and values: q8_0, or q8_0/q4_0 (f16,q8_0,q4_0)"
    )
    speed.add_argument("--forms", default="f16,q8,q4", help="Kvist's (%(default)s)")
    speed.add_argument("--rounds", type=at_least(1), default=3, help="of which the median counts (%(default)s)")
    speed.add_argument("--tokens", type=at_least(0), default=32, help="of decode; 0 leaves it out (%(default)s)")
    speed.add_argument("--prefill-tokens", type=at_least(0), default=512, help="0 leaves it out (%(default)s)")
    speed.add_argument(
        "--quick", action="store_true", help=f"--depths {QUICK_DEPTHS} --types {QUICK_TYPES} where not given"
    )


def add_quality_options(quality):
    quality.add_argument("-f", "--file", dest="text", required=True, help="plain text of --chunks windows or more")
    quality.add_argument("--types", default="f16,q8_0,q5_1,q4_0", metavar="T,T,...", help="llama.cpp's (%(default)s)")
    quality.add_argument("--forms", help="Kvist's (the ladder of `kvist eval`)")
    quality.add_argument("--chunks", type=at_least(1), default=3, help="windows of the text (%(default)s)")
    quality.add_argument("--context", type=at_least(256), default=2048, help="tokens of a window (%(default)s)")


def add_tiers_options(tiers):
    tiers.add_argument("--lengths", metavar="N,N,...", help="tokens of the prompt (1024,2048,4096,8064)")
    tiers.add_argument("--types", metavar="T,T,...", help="llama.cpp's keys and values (f16,q8_0,q4_0)")
    tiers.add_argument("--forms", metavar="F,F,...", help="Kvist's (f16,q8,q4)")
    tiers.add_argument("--rounds", type=at_least(1), default=3, help="of which the median counts (%(default)s)")
    tiers.add_argument("--store", metavar="FOLDER", help="on the disk that is measured (the one for temporary files)")
    tiers.add_argument(
        "--quick", action="store_true", help=f"--lengths {QUICK_LENGTHS} --types f16 --forms f16,q4 where not given"
    )


def main(arguments=None):
    parsed = parse(arguments)
    return run_main(lambda: parsed.run(parsed))


if __name__ == "__main__":
    sys.exit(main())
