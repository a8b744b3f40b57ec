#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The Kvist authors
"""What NVIDIA's kvpress loses by giving up tokens, measured as `kvist eval --retain` measures it; README.md beside this
file says what is compared.

kvpress lives in a virtual environment of its own, which is made the first time; kvpress_probe.py runs in it. Needs
Python 3.11.
"""

import argparse
import dataclasses
import json
import math
import pathlib
import statistics
import subprocess
import sys
import tempfile

sys.dont_write_bytecode = True
from kvpress_presses import NAMES, NONE, PRESSES, presses_of  # noqa: E402
from peer import (  # noqa: E402
    DEFAULT_KVIST,
    REPOSITORY,
    Kvist,
    PeerError,
    at_least,
    cpu_flags,
    failure,
    markdown,
    native_isa,
    python_environment,
    record,
    run_main,
    say,
    write_records,
)

VERSION = "0.5.5"
# torch first: by itself kvpress would get one with CUDA.
REQUIREMENTS = (("torch==2.13.0",), (f"kvpress=={VERSION}", "transformers==5.2.0", "gguf==0.19.0"))
DEFAULT_FOLDER = REPOSITORY / "build" / "peers" / "kvpress-venv"
PROBE = pathlib.Path(__file__).resolve().parent / "kvpress_probe.py"


@dataclasses.dataclass(frozen=True)
class Setting:
    """What is the same for both."""

    model: object  # peer.Model
    text: str  # path
    context: int  # tokens of a prefix
    continuation: int  # tokens behind it
    windows: int
    threads: int
    keep: list  # shares

    def params(self):
        names = ("context", "continuation", "windows", "threads")
        fixed = {name: getattr(self, name) for name in names}
        return {"model": self.model.name, "weights": "f32", "text": pathlib.Path(self.text).stem, **fixed, "pages": 0}


@dataclasses.dataclass(frozen=True)
class Row:
    impl: str
    name: str  # of the press or policy
    params: dict
    metrics: dict


# --- kvpress ---


def probe(python, setting, presses):
    """Gives the objects that kvpress_probe.py prints, as it goes."""
    fields = {**dataclasses.asdict(setting), "model": setting.model.path}
    fields["presses"] = [press.setting() for press in presses]
    command = [str(python), "-P", str(PROBE), json.dumps(fields)]  # -P: else this file would be its `kvpress`
    with tempfile.TemporaryFile("w+", errors="replace") as errors:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=errors, text=True)
        with process:
            try:
                yield from map(json.loads, process.stdout)
            except BaseException:
                process.kill()
                raise
        if process.returncode != 0:
            errors.seek(0)
            advice = f"run it yourself to see more: {python} -P {PROBE} '{command[-1]}'"
            raise PeerError(failure("kvpress", process.returncode, errors.read(), advice, python.parent))


def told(found):
    """What is said of an object of the probe while it measures."""
    if "error" in found:
        return f"kvpress {found['press']} does not work here: {found['error']}"
    name = f"window {found['window'] + 1}"
    if "press" in found:
        return f"{name}, kvpress {found['press']}, {found['keep']:.0%} kept: KL {found['kl']:.2e}"
    return f"{name}: perplexity {math.exp(found['base_loss']):.2f}, a prefix takes {found['prefill_s']:.1f} s"


def rows_of(found, setting):
    """The Rows of what the probe has printed so far; of a press and share those windows count that it has done."""
    windows = {each["window"]: each for each in found if "base_loss" in each}
    cases = {}
    for each in found:
        if "kl" in each:
            cases.setdefault((each["press"], each["keep"]), []).append(each)
    presses = {press.name: press for press in (NONE, *PRESSES)}
    for (name, keep), samples in cases.items():
        press = presses[name]
        params = {**setting.params(), "form_k": "f32", "form_v": "f32", "policy": press.policy, "shape": press.shape}
        params |= {"keep": keep, "press": name, "windows": len(samples)}
        yield Row("kvpress", name, params, summary(samples, [windows[each["window"]] for each in samples]))


def summary(samples, windows):
    """The metrics of a case, a sample a window; windows: what these were without a press."""

    def mean(objects, field):
        return statistics.fmean(each[field] for each in objects)

    loss, full, none = mean(samples, "loss"), mean(windows, "base_loss"), mean(windows, "no_prefix_loss")
    kl = [each["kl"] for each in samples]
    return {
        "kl_mean": statistics.fmean(kl),
        "kl_se": statistics.stdev(kl) / math.sqrt(len(kl)) if len(kl) > 1 else None,
        "same_top": mean(samples, "same_top"),
        "perplexity": math.exp(loss),
        "recovered": (none - loss) / (none - full),
        "held_tokens": mean(samples, "held_tokens"),
        "kv_bytes": mean(samples, "kv_bytes"),
        "full_kv_bytes": mean(windows, "kv_bytes"),
        "base_perplexity": math.exp(full),
        "no_prefix_perplexity": math.exp(none),
        "prefill_s": mean(windows, "prefill_s"),
        "prefill_cpu_s": mean(windows, "prefill_cpu_s"),
        "evict_s": mean(samples, "evict_s"),
        "evict_cpu_s": mean(samples, "evict_cpu_s"),
    }


# --- Kvist ---


def measure_kvist(kvist, setting, presses, form):
    """The Rows of what in Kvist comes nearest to the presses."""
    wanted = list(dict.fromkeys((press.policy, press.shape) for press in presses))
    arguments = ["eval", "-m", setting.model.path, "-f", setting.text, "--weights", "f32", "--form", form]
    for name in ("context", "continuation", "windows", "threads"):
        arguments += [f"--{name}", getattr(setting, name)]
    for option, values in (("--retain", [policy for policy, _ in wanted]), ("--shape", [shape for _, shape in wanted])):
        arguments += [option, ",".join(dict.fromkeys(values))]
    arguments += ["--keep", ",".join(map(str, setting.keep))]
    say("Kvist")
    rows = {}
    for found in kvist.ask(*arguments):
        params = found["params"]
        case = (params["policy"], params["shape"])
        if case in wanted or params["keep"] == 1:
            name = case[0] if case[1] == "uniform" else ", ".join(case)
            row = rows.setdefault((case, params["keep"]), Row("kvist", name, {**setting.params(), **params}, {}))
            row.metrics[found["metric"]] = found["value"]
    return list(rows.values())


# --- results ---


def records_of(rows, origin):
    """origin: kvist's."""
    origins = {"kvist": origin, "kvpress": {**origin, "isa": native_isa(cpu_flags()), "commit": f"kvpress-{VERSION}"}}
    for row in rows:
        for metric, value in row.metrics.items():
            yield record("eval", row.impl, row.params, metric, value, origins[row.impl])


def report_of(rows, failures, setting):
    """failures: {press: why it does not work}"""
    bases = {row.impl: row.metrics for row in rows}
    both = ", ".join(
        f"{impl} {base['base_perplexity']:.4f} with all of it and {base['no_prefix_perplexity']:.4f} without"
        for impl, base in bases.items()
    )
    text = (
        f"{setting.model.name} with f32 weights, {pathlib.Path(setting.text).name}: {setting.windows} prefixes of "
        f"{setting.context:,} tokens, {setting.continuation:,} behind each, against the whole prefix in f32 "
        f"(perplexity: {both}). Held: tokens a lane. KV: bytes of the cache beside all of it. Evicting: its time "
        f"beside the prefix's, kvpress's in processor time."
    )
    head = ["engine", "press", "keep", "held", "KV", "KL", "same top", "perplexity", "recovered", "evicting"]
    ordered = sorted(rows, key=lambda row: (-row.params["keep"], row.metrics["kl_mean"]))
    lines = [f"{name} of kvpress {VERSION} does not work here: {why}" for name, why in failures.items()]
    return "\n\n".join([text, markdown(head, [_cells(row) for row in ordered]), *lines])


def _cells(row):
    metrics = row.metrics
    spread = metrics["kl_se"]
    kl = f"{metrics['kl_mean']:.2e}" + (f" ± {spread:.1e}" if spread is not None else "")
    cells = [row.impl, row.name, f"{row.params['keep']:.0%}", f"{metrics['held_tokens']:,.0f}"]
    cells += [_share(metrics, "kv_bytes", "full_kv_bytes", ".0%"), kl, f"{metrics['same_top']:.1%}"]
    cells += [f"{metrics['perplexity']:.2f}", f"{metrics['recovered']:.1%}"]
    unit = "cpu_s" if "evict_cpu_s" in metrics else "s"
    return cells + [_share(metrics, f"evict_{unit}", f"prefill_{unit}", ".1%")]


def _share(metrics, part, whole, style):
    return format(metrics[part] / metrics[whole], style) if part in metrics and whole in metrics else "-"


# --- arguments ---


def shares_of(text):
    try:
        shares = [float(share) for share in text.split(",")]
    except ValueError:
        shares = [0.0]
    if not all(0 < share < 1 for share in shares):
        raise PeerError(f"--keep takes shares between 0 and 1 with commas between them, and '{text}' is not that.")
    return shares


def setting_of(arguments, model):
    text = pathlib.Path(arguments.text).resolve()
    if not text.is_file():
        raise PeerError(f"There is no text {text}; give -f a file of plain text, a book for example.")
    length = arguments.context + arguments.continuation
    if length > model.context:
        raise PeerError(f"A window of {length} tokens doesn't fit the context of {model.name}, {model.context} tokens.")
    numbers = {name: getattr(arguments, name) for name in ("context", "continuation", "windows", "threads")}
    return Setting(model, str(text), keep=shares_of(arguments.keep), **numbers)


def parse(arguments):
    parser = argparse.ArgumentParser(description="Measures kvpress as `kvist eval --retain` measures Kvist.")
    parser.add_argument("-m", "--model", required=True, help="GGUF file, or name of a model that kvist fetched")
    parser.add_argument("-f", "--file", dest="text", required=True, help="plain text of --windows windows or more")
    parser.add_argument("--kvist", default=str(DEFAULT_KVIST), metavar="PATH", help="the program (%(default)s)")
    parser.add_argument("--folder", type=pathlib.Path, default=DEFAULT_FOLDER, help="kvpress's (%(default)s)")
    parser.add_argument("--context", type=at_least(256), default=4096, help="tokens of a prefix (%(default)s)")
    parser.add_argument("--continuation", type=at_least(2), default=256, help="tokens behind it (%(default)s)")
    parser.add_argument("--windows", type=at_least(1), default=2, help="of the text (%(default)s)")
    parser.add_argument("--keep", default="0.25,0.5", metavar="SHARE,...", help="of the tokens (%(default)s)")
    parser.add_argument("--presses", default="all", metavar="P,P,...", help="all, or some of: " + NAMES)
    parser.add_argument("--beside", action="store_true", help="measure Kvist's policies, too")
    parser.add_argument("--form", default="f16", help="Kvist's, with --beside (%(default)s)")
    parser.add_argument("--threads", type=at_least(1), default=2, help="that compute, of both (%(default)s)")
    parser.add_argument("--json", action="store_true", help="print records (docs/results.schema.json), table to stderr")
    return parser.parse_args(arguments)


def compare(arguments):
    kvist = Kvist(arguments.kvist)
    setting = setting_of(arguments, kvist.model(arguments.model))
    presses = presses_of(arguments.presses)
    origin = kvist.origin()
    python = python_environment(arguments.folder.resolve(), f"kvpress {VERSION}", REQUIREMENTS)
    rows = []
    found = []
    try:
        if arguments.beside:
            rows += measure_kvist(kvist, setting, presses, arguments.form)
        for each in probe(python, setting, presses):
            say(told(each))
            found.append(each)
    finally:  # what was measured is not lost when something stops it
        rows += rows_of(found, setting)
        if rows:
            if arguments.json:
                write_records(records_of(rows, origin))
            failures = {each["press"]: each["error"] for each in found if "error" in each}
            report = report_of(rows, failures, setting)
            print(report, file=sys.stderr if arguments.json else sys.stdout, flush=True)


def main(arguments=None):
    return run_main(lambda: compare(parse(arguments)))


if __name__ == "__main__":
    sys.exit(main())
