# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The Kvist authors
"""What the comparisons with other engines share: running programs, asking kvist, records and tables."""

import argparse
import dataclasses
import json
import pathlib
import platform
import shutil
import signal
import socket
import subprocess
import sys
import venv

REPOSITORY = pathlib.Path(__file__).resolve().parents[2]
DEFAULT_KVIST = REPOSITORY / "build" / "release" / "kvist"
MIN_FREE_BYTES = 10 << 20  # with less, a program that failed probably failed for want of room


class PeerError(Exception):
    """What went wrong, where, and what to do: one sentence for the user."""


def say(text):
    print(f"peers: {text}", file=sys.stderr, flush=True)


def run_main(act):
    """Does act, a program's work, and returns the exit status; what went wrong is said in a sentence."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # stops what is running, too
    try:
        act()
    except PeerError as error:
        say(f"error: {error}")
        return 1
    except KeyboardInterrupt:
        say("stopped")
        return 130
    return 0


# --- programs ---


def run(command, what, advice="mend that and run the command again", folder=REPOSITORY, **options):
    """Runs a program and returns what it printed, as (stdout, stderr). what: what it does, for the error's sentence;
    folder: where it writes."""
    command = [str(word) for word in command]
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace", check=False, **options
        )
    except OSError as error:
        raise PeerError(f"{what} failed: {command[0]} can't be run ({error.strerror}); {advice}.") from error
    if done.returncode != 0:
        raise PeerError(failure(what, done.returncode, done.stderr + done.stdout, advice, folder))
    return done.stdout, done.stderr


def free_port():
    """One of 127.0.0.1 that was free just now."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def failure(what, return_code, output, advice, folder):
    """The sentence for a program that ended with return_code after it had printed output."""
    if "No space left on device" in output or shutil.disk_usage(folder).free < MIN_FREE_BYTES:
        return f"{what} failed because the disk is full; make room and run the command again."
    ending = f"signal {-return_code}" if return_code < 0 else f"exit code {return_code}"
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    errors = [line for line in lines if "error" in line.lower()] or lines or ["it printed nothing"]
    return f"{what} failed ({ending}): {errors[-1]}; {advice}."


def python_environment(folder, name, requirements):
    """The Python of the virtual environment in folder, which is made where it isn't whole yet. requirements: packages
    that pip installs together, one group after the other."""
    python = folder / "bin" / "python"
    stamp = folder / "kvist-installed"
    text = json.dumps(requirements)
    if stamp.is_file() and stamp.read_text(encoding="utf-8") == text:
        return python
    say(f"installing {name} into {folder} (up to 2 GB, some minutes)")
    venv.create(folder, with_pip=True, clear=True)
    for packages in requirements:
        command = [python, "-m", "pip", "install", "--quiet", "--no-input", "--disable-pip-version-check", *packages]
        run(command, f"Installing {packages[0]}", "see the lines above", folder)
    stamp.write_text(text, encoding="utf-8")
    return python


# --- arguments ---


def at_least(least):
    """What argparse makes a whole number with."""

    def number(text):
        value = int(text)
        if value < least:
            raise argparse.ArgumentTypeError(f"has to be at least {least}")
        return value

    return number


# --- kvist ---


@dataclasses.dataclass(frozen=True)
class Model:
    path: str
    context: int  # tokens
    vocabulary: int

    @property
    def name(self):
        return pathlib.Path(self.path).stem


@dataclasses.dataclass(frozen=True)
class Kvist:
    """The program that is compared."""

    path: str

    def ask(self, *arguments):
        """The objects that a command prints with --json."""
        what = "kvist " + " ".join(str(argument) for argument in arguments)
        if not pathlib.Path(self.path).is_file():
            raise PeerError(f"There is no program {self.path}; build it with `make build`, or name one with --kvist.")
        printed, _ = run(
            [self.path, *arguments, "--json"], what, "see its --help, or build kvist anew with `make build`"
        )
        try:
            return [json.loads(line) for line in printed.splitlines()]
        except ValueError as error:
            raise PeerError(
                f"{what} --json printed something that is not JSON ({error}); is {self.path} kvist?"
            ) from error

    def model(self, path_or_name):
        found = self.ask("inspect", path_or_name)[0]
        return Model(found["path"], found["context"], found["vocabulary"])

    def origin(self):
        found = self.ask("isa")[0]
        return {field: found[field] for field in ("cpu", "isa", "commit")}


# --- records (docs/results.schema.json) ---


def cpu_flags():
    """The instruction sets that the kernel names; empty where it names none."""
    try:
        lines = pathlib.Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return frozenset()
    for line in lines:
        name, _, value = line.partition(":")
        if name.strip() in ("flags", "Features"):
            return frozenset(value.split())
    return frozenset()


def native_isa(flags):
    """What a program that was compiled for this CPU uses, in the words of our records."""
    if platform.machine() in ("aarch64", "arm64"):
        return "neon"
    isa_to_flag = {"avx512vnni": "avx512_vnni", "avx512": "avx512f", "avx2": "avx2"}
    return next((isa for isa, flag in isa_to_flag.items() if flag in flags), "scalar")


def record(bench, impl, params, metric, value, origin):
    return {"bench": bench, "impl": impl, "params": params, "metric": metric, "value": value, **origin}


def write_records(records):
    for one in records:
        print(json.dumps(one))
    sys.stdout.flush()


# --- tables ---


def markdown(head, rows):
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    return "\n".join(lines + ["| " + " | ".join(row) + " |" for row in rows])
