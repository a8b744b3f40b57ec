# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The Kvist authors
"""What stored forms of keys and values cost in quality: llama-perplexity beside `kvist eval`, on one text.

Both do the same: windows of the text, scored over their second halves, KL divergence of the next token's distribution
against the same engine with f32 keys and values. The weights are expanded to f32, because beside quantised weights ggml
quantises activations, and that noise is larger than what most forms cost.
"""

import dataclasses
import pathlib
import re

from kv_types import KvType
from llama_build import is_stamped
from peer import PeerError, markdown, record, run, say

BASE = KvType("f32", "f32")
PATTERNS = {  # of what llama-perplexity prints, by our metric; same_top is in percent there
    "kl_mean": re.compile(r"^Mean\s+KLD:\s+(\S+)", re.MULTILINE),
    "kl_p99": re.compile(r"^99\.0%\s+KLD:\s+(\S+)", re.MULTILINE),
    "same_top": re.compile(r"^Same top p:\s+(\S+)", re.MULTILINE),
    "base_perplexity": re.compile(r"^Mean PPL\(base\)\s*:\s+(\S+)", re.MULTILINE),
}


@dataclasses.dataclass(frozen=True)
class Setting:
    """What is the same for both."""

    model: object  # peer.Model
    text: str  # path
    context: int  # tokens of a window
    chunks: int  # windows
    threads: int


@dataclasses.dataclass(frozen=True)
class Row:
    impl: str
    form: str
    params: dict
    metrics: dict  # by name; bits is those of an element once it is quantised, total_bits of all that is kept


# --- llama.cpp ---


def expand_weights(llama, model):
    """The path of the model with f32 weights, made where it isn't there yet."""
    source = pathlib.Path(model.path)
    target = llama.folder / f"{model.name}-f32.gguf"
    stamp = target.with_suffix(".made-from")
    identity = f"{source.resolve()} {source.stat().st_size} {source.stat().st_mtime_ns}"
    if target.is_file() and is_stamped(stamp, identity):
        return target
    say(f"expanding the weights of {model.name} to f32: {target}")
    stamp.unlink(missing_ok=True)
    command = [llama.programs / "llama-quantize", "--allow-requantize", source, target, "F32"]
    run(command, f"Expanding the weights of {model.name}", "look whether llama.cpp knows this model", llama.folder)
    stamp.write_text(identity, encoding="utf-8")
    return target


def measure_llama(llama, setting, types):
    """Gives a Row for each type."""
    weights = expand_weights(llama, setting.model)
    base = llama.folder / f"{setting.model.name}-base.kld"
    try:
        say(f"llama.cpp f32: the base of {setting.chunks} windows ({_base_bytes(setting) / 1e6:.0f} MB for now)")
        options = ["-f", setting.text, "--chunks", setting.chunks, "-fa", "off"]
        _check_windows(_perplexity(llama, weights, base, BASE, options, setting), setting)
        for kv in types:
            say(f"llama.cpp {kv.name}")
            printed = _perplexity(llama, weights, base, kv, ["-fa", "on", "--kl-divergence"], setting)
            yield Row("llama.cpp", kv.name, _params(setting, kv), {**_metrics(printed, kv), **_bits(kv)})
    finally:
        base.unlink(missing_ok=True)


def _perplexity(llama, weights, base, kv, options, setting):
    command = [llama.programs / "llama-perplexity", "-m", weights, "-c", setting.context, "-b", setting.context]
    command += ["-t", setting.threads, *kv.options, "--kl-divergence-base", base, *options]
    advice = "leave this type out, or run the command yourself: " + " ".join(map(str, command))
    return "\n".join(run(command, f"llama-perplexity with {kv.name}", advice, llama.folder))


def _base_bytes(setting):
    """Two bytes for each probability."""
    return 2 * setting.chunks * (setting.context // 2) * setting.model.vocabulary


def _check_windows(printed, setting):
    found = re.search(r"over (\d+) chunks", printed)
    if found is None or int(found[1]) != setting.chunks:
        number = found[1] if found else "fewer than 2"
        raise PeerError(
            f"{setting.text} holds {number} windows of {setting.context} tokens and {setting.chunks} are asked for; "
            f"give a longer text, fewer --chunks or a shorter --context."
        )


def _metrics(printed, kv):
    metrics = {}
    for name, pattern in PATTERNS.items():
        found = pattern.search(printed)
        if found is None:
            raise PeerError(
                f"llama-perplexity with {kv.name} printed no {name}; it takes at least 100 scored tokens, so give a "
                f"longer --context or more --chunks."
            )
        metrics[name] = float(found[1])
    return {**metrics, "same_top": metrics["same_top"] / 100}


def _bits(kv):
    return {"bits": kv.bits, "total_bits": kv.bits}


def _params(setting, kv):
    params = {"model": setting.model.name, "form_k": kv.k, "form_v": kv.v, "weights": "f32"}
    return {**params, "context": setting.context, "windows": setting.chunks, "threads": setting.threads}


# --- Kvist ---


def measure_kvist(kvist, setting, forms):
    """The Rows of the forms; forms None: those that `kvist eval` takes by itself."""
    say("Kvist")
    arguments = ["eval", "-m", setting.model.path, "-f", setting.text, "--context", setting.context]
    arguments += ["--windows", setting.chunks, "--threads", setting.threads]
    rows = {}
    for found in kvist.ask(*arguments, *(["--form", forms] if forms else [])):
        params = found["params"]
        form = KvType(params["form_k"], params["form_v"]).name
        row = rows.setdefault(form, Row(found["impl"], form, params, {}))
        row.metrics[found["metric"]] = found["value"]
    return list(rows.values())


# --- results ---


def records_of(rows, origins):
    """origins: {impl: its cpu, isa and commit}"""
    for row in rows:
        for metric, value in row.metrics.items():
            yield record("eval", row.impl, row.params, metric, value, origins[row.impl])


def report_of(rows, setting):
    impl_to_base = {row.impl: row.metrics["base_perplexity"] for row in rows}
    bases = ", ".join(f"{impl} {value:.4f}" for impl, value in impl_to_base.items())
    text = (
        f"{setting.model.name} with f32 weights, {pathlib.Path(setting.text).name}: {setting.chunks} windows of "
        f"{setting.context:,} tokens, their second halves, against f32 keys and values (perplexity with these: "
        f"{bases}). Bits: of a number once it is quantised; in all: with what is not, at the end of a window."
    )
    head = ["engine", "K and V", "bits", "bits in all", "mean KL", "99 %", "same top"]
    ordered = sorted(rows, key=lambda row: -row.metrics["bits"])
    return text + "\n\n" + markdown(head, [_cells(row) for row in ordered])


def _cells(row):
    formats = {"bits": ".2f", "total_bits": ".2f", "kl_mean": ".2e", "kl_p99": ".2e", "same_top": ".2%"}
    return [row.impl, row.form] + [_number(row.metrics[name], style) for name, style in formats.items()]


def _number(value, style):
    return "not a number" if value is None else format(value, style)  # JSON's null stands for what is none
