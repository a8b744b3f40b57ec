#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The Kvist authors
"""Compares Kvist's tiers with LMCache's stores on this machine; README.md beside this file says what is measured.

LMCache lives in a virtual environment of its own, which is made the first time; lmcache_probe.py runs in it, in turns
with `kvist bench tiers`. Needs Python 3.11 and a redis-server.
"""

import argparse
import dataclasses
import json
import pathlib
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time

sys.dont_write_bytecode = True
from peer import (  # noqa: E402
    DEFAULT_KVIST,
    REPOSITORY,
    Kvist,
    PeerError,
    at_least,
    free_port,
    markdown,
    python_environment,
    record,
    run,
    run_main,
    say,
    write_records,
)

VERSION = "0.5.6"
# torch first: by itself LMCache would get one with CUDA. The others are what pip takes very long to find.
REQUIREMENTS = (
    ("torch==2.13.0",),
    (
        f"lmcache=={VERSION}",
        "opentelemetry-sdk==1.40.0",
        "opentelemetry-exporter-otlp==1.40.0",
        "opentelemetry-exporter-prometheus==0.61b0",
    ),
)
DEFAULT_FOLDER = REPOSITORY / "build" / "peers" / "lmcache-venv"
PROBE = pathlib.Path(__file__).resolve().parent / "lmcache_probe.py"
CHUNK_TOKENS = 256
METRICS = ("store_gb_per_s", "load_gb_per_s")
MAX_START_S = 10  # of redis-server


@dataclasses.dataclass(frozen=True)
class Sample:
    impl: str
    path: str  # memory, disk, redis, "redis, native client"
    metric: str
    value: float


# --- Redis ---


class RedisServer:
    """A redis-server of our own, which keeps nothing on disk, on a port that was free."""

    def __init__(self, folder):
        program = shutil.which("redis-server")
        if program is None:
            raise PeerError("There is no redis-server; run `make setup` (or `apt-get install redis-server`).")
        self.port = free_port()
        options = ["--port", str(self.port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]
        self._process = subprocess.Popen(
            [program, *options], cwd=folder, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL
        )

    def __enter__(self):
        end = time.monotonic() + MAX_START_S
        while True:
            try:
                return self.flush()
            except OSError as error:
                if time.monotonic() > end or self._process.poll() is not None:
                    self.__exit__()
                    raise PeerError(f"redis-server does not answer ({error}); run it yourself to see why.") from error
                time.sleep(0.05)

    def __exit__(self, *_):
        self._process.terminate()
        self._process.wait()

    def flush(self):
        """Forgets all."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=MAX_START_S) as connection:
            connection.sendall(b"FLUSHALL\r\n")
            if not connection.recv(64).startswith(b"+OK"):
                raise OSError("it refused FLUSHALL")
        return self


# --- measuring ---


def measure_lmcache(python, setting):
    command = [python, "-P", PROBE, json.dumps(setting)]  # -P: else this file would be its `lmcache`
    printed, _ = run(command, "LMCache", "run it yourself to see more: " + " ".join(map(str, command)))
    for line in printed.splitlines():
        found = json.loads(line)
        for metric in METRICS:
            yield Sample("lmcache", found["path"], metric, found[metric])


def measure_kvist(kvist, model, setting, form):
    arguments = ["bench", "tiers", "-m", model.path, "--form", form, "--tokens", setting["chunks"] * CHUNK_TOKENS]
    arguments += ["--rounds", 1, "--chats", 1, "--no-prefill", "--threads", setting["threads"]]
    arguments += ["--tier", f"disk:{setting['folder']}/kvist,size=4G"]
    arguments += ["--tier", f"redis://127.0.0.1:{setting['redis_port']},ttl=3600"]
    for found in kvist.ask(*arguments):
        if found["metric"] in METRICS:
            yield Sample("kvist", found["params"]["path"], found["metric"], found["value"])


def measure(python, kvist, model, setting, rounds, redis):
    """Gives the samples, round by round; every second round goes the other way about."""
    for number in range(1, rounds + 1):
        turns = [lambda: measure_lmcache(python, setting), lambda: measure_kvist(kvist, model, setting, "f16")]
        for turn in turns if number % 2 else reversed(turns):
            for sample in turn():
                say(f"round {number}: {sample.impl}, {sample.path}: {sample.metric} {sample.value:.2f}")
                yield sample
            redis.flush()


# --- results ---


def by_case(samples):
    """{(impl, path, metric): values}, in the order of measuring."""
    cases = {}
    for sample in samples:
        cases.setdefault((sample.impl, sample.path, sample.metric), []).append(sample.value)
    return cases


def records_of(samples, setting, model, origin):
    """origin: kvist's; LMCache has no kernels of its own here."""
    origins = {"kvist": origin, "lmcache": {**origin, "isa": "none", "commit": f"lmcache-{VERSION}"}}
    fixed = {"model": model.name, "form": "f16", "tokens": setting["chunks"] * CHUNK_TOKENS}
    for (impl, path, metric), values in by_case(samples).items():
        params = {**fixed, "path": path, "threads": setting["threads"], "rounds": len(values)}
        if impl == "lmcache":
            params["chunk_tokens"] = CHUNK_TOKENS
        yield record("tiers", impl, params, metric, statistics.median(values), origins[impl])


def report_of(samples, setting):
    cases = by_case(samples)
    paths = list(dict.fromkeys(sample.path for sample in samples))
    rows = [[path] + [_cell(cases.get((i, path, m))) for i in ("lmcache", "kvist") for m in METRICS] for path in paths]
    text = (
        f"f16 keys and values of {setting['chunks'] * CHUNK_TOKENS:,} tokens, GB/s: medians (lowest to highest) of "
        f"{max(map(len, cases.values()))} rounds. LMCache {VERSION} in chunks of {CHUNK_TOKENS} tokens, unverified; "
        f"Kvist with checksums, digests and tokens. Memory: copied in and out; Kvist shares it and copies nothing."
    )
    head = ["", "LMCache stored", "LMCache loaded", "Kvist stored", "Kvist loaded"]
    return text + "\n\n" + markdown(head, rows)


def _cell(values):
    if values is None:
        return "-"
    return f"{statistics.median(values):.2f} ({min(values):.2f} to {max(values):.2f})"


# --- arguments ---


def parse(arguments):
    parser = argparse.ArgumentParser(description="Compares Kvist's tiers with LMCache's stores on this machine.")
    parser.add_argument("-m", "--model", required=True, help="GGUF file, or name of a model that kvist fetched")
    parser.add_argument("--kvist", default=str(DEFAULT_KVIST), metavar="PATH", help="the program (%(default)s)")
    parser.add_argument("--folder", type=pathlib.Path, default=DEFAULT_FOLDER, help="LMCache's (%(default)s)")
    parser.add_argument("--chunks", type=at_least(1), default=16, help=f"of {CHUNK_TOKENS} tokens (%(default)s)")
    parser.add_argument("--rounds", type=at_least(1), default=5, help="of which the median counts (%(default)s)")
    parser.add_argument("--threads", type=at_least(1), default=2, help="that compute, of both (%(default)s)")
    parser.add_argument("--json", action="store_true", help="print records (docs/results.schema.json), table to stderr")
    return parser.parse_args(arguments)


def compare(arguments):
    kvist = Kvist(arguments.kvist)
    model = kvist.model(arguments.model)
    if arguments.chunks * CHUNK_TOKENS >= model.context:
        raise PeerError(f"{arguments.chunks} chunks don't fit the context of {model.name}, {model.context} tokens.")
    origin = kvist.origin()
    python = python_environment(arguments.folder.resolve(), f"LMCache {VERSION}", REQUIREMENTS)
    samples = []
    with tempfile.TemporaryDirectory(dir=arguments.folder.resolve()) as folder, RedisServer(folder) as redis:
        setting = {"chunks": arguments.chunks, "folder": folder, "redis_port": redis.port, "threads": arguments.threads}
        try:
            for sample in measure(python, kvist, model, setting, arguments.rounds, redis):
                samples.append(sample)
        finally:  # what was measured is not lost when something stops it
            if samples:
                if arguments.json:
                    write_records(records_of(samples, setting, model, origin))
                report = report_of(samples, setting)
                print(report, file=sys.stderr if arguments.json else sys.stdout, flush=True)


def main(arguments=None):
    return run_main(lambda: compare(parse(arguments)))


if __name__ == "__main__":
    sys.exit(main())
