# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The Kvist authors
"""Keeping a prompt's keys and values and having them back: llama-server beside `kvist bench tiers`, in turns.

llama-server saves its slot to a file and restores it, and keeps prompts that others displaced in host memory. Kvist
writes a sequence that ended to its disk tier, from which another cache loads it; in memory, sequences share it.
"""

import dataclasses
import pathlib
import random
import statistics
import tempfile

from kv_types import KvType
from llama_server import LlamaServer
from peer import PeerError, markdown, record, say

REPETITIONS = 3  # of what is quick, within a measurement, of both
COLUMNS = {  # of the table: title, (path, metric) of llama.cpp, of Kvist
    "MB": (("slot", "bytes"), ("disk", "bytes")),
    "computed": (("prefill", "prefill_ms"), ("prefill", "prefill_ms")),
    "saved": (("slot", "save_ms"), ("session", "save_ms")),
    "resumed": (("slot", "resume_ms"), ("disk", "resume_ms")),
    "first token": (("slot", "first_token_ms"), ("disk", "first_token_ms")),
    "first token from memory": (("host memory", "first_token_ms"), ("memory", "first_token_ms")),
}


@dataclasses.dataclass(frozen=True)
class Setting:
    """What is the same for both."""

    model: object  # peer.Model
    tokens: list  # lengths of the prompt
    threads: int
    rounds: int
    folder: pathlib.Path  # where both keep what they keep


@dataclasses.dataclass(frozen=True)
class Sample:
    """One measurement."""

    impl: str
    form: str
    tokens: int
    path: str
    metric: str
    value: float


# --- llama.cpp ---


@dataclasses.dataclass(frozen=True)
class Llama:
    program: object  # path of llama-server
    kv: KvType

    def measure(self, tokens, setting):
        with tempfile.TemporaryDirectory(dir=setting.folder) as folder:
            with LlamaServer(self.program, setting.model, self.kv, setting.threads, folder) as server:
                server.complete(_new_prompt(setting.model, 16))  # the first of all is slower
                for path, metric, value in _visits(server, setting.model, tokens):
                    yield Sample("llama.cpp", self.kv.name, tokens, path, metric, value)


def _new_prompt(model, num_tokens):
    """Nobody has computed it. Of the tokens that stand for text."""
    return [random.randrange(model.vocabulary // 4, model.vocabulary) for _ in range(num_tokens)]


def _visits(server, model, num_tokens):
    """Gives (path, metric, value). The first prompt is saved to disk and restored; then another displaces it."""
    prompt, other = _new_prompt(model, num_tokens), _new_prompt(model, num_tokens)
    yield "prefill", "prefill_ms", server.complete(prompt)["prompt_ms"]
    for _ in range(REPETITIONS):
        saved = server.slot("save")
        yield "slot", "save_ms", saved["timings"]["save_ms"]
        server.slot("erase")
        resume_ms = server.slot("restore")["timings"]["restore_ms"]
        yield "slot", "resume_ms", resume_ms
        yield "slot", "first_token_ms", resume_ms + _revisit(server, prompt)["prompt_ms"]
    yield "slot", "bytes", saved["n_written"]
    yield "prefill", "prefill_ms", server.complete(other)["prompt_ms"]
    for again in [prompt, other] * REPETITIONS:
        yield "host memory", "first_token_ms", _revisit(server, again)["wall_ms"]


def _revisit(server, prompt):
    """Completes a prompt that the server should have, but for its last token."""
    timings = server.complete(prompt)
    if timings["cache_n"] < len(prompt) - 1:
        raise PeerError(
            f"{server.name} had only {timings['cache_n']} of {len(prompt)} tokens when a prompt came back; give fewer "
            f"--lengths."
        )
    return timings


# --- Kvist ---


@dataclasses.dataclass(frozen=True)
class Ours:
    kvist: object  # peer.Kvist
    form: str

    def measure(self, tokens, setting):
        with tempfile.TemporaryDirectory(dir=setting.folder) as folder:
            arguments = ["bench", "tiers", "-m", setting.model.path, "--form", self.form, "--tokens", tokens]
            arguments += ["--threads", setting.threads, "--rounds", REPETITIONS, "--chats", 1]
            for found in self.kvist.ask(*arguments, "--tier", f"disk:{folder}"):
                yield Sample("kvist", self.form, tokens, found["params"]["path"], found["metric"], found["value"])
            yield Sample("kvist", self.form, tokens, "disk", "bytes", self._bytes_per_token(folder) * tokens)

    def _bytes_per_token(self, folder):
        """Of the records that lie there, with their headers."""
        kinds = self.kvist.ask("inspect", folder)[0]["kinds"]
        return sum(kind["bytes"] for kind in kinds) / sum(kind["tokens"] for kind in kinds)


# --- in turns ---


def contestants_of(kvist, forms, llama_server, types):
    return [Ours(kvist, form) for form in forms] + [Llama(llama_server, kv) for kv in types]


def check_lengths(setting):
    for tokens in setting.tokens:
        if not 0 < tokens < setting.model.context:
            raise PeerError(
                f"A prompt of {tokens} tokens and one more don't fit the context of {setting.model.name}, "
                f"{setting.model.context} tokens; give other --lengths."
            )


def measure(contestants, setting):
    """Gives the samples, round by round; every second round goes the other way about."""
    for number in range(1, setting.rounds + 1):
        for tokens in setting.tokens:
            for contestant in contestants if number % 2 else reversed(contestants):
                samples = list(contestant.measure(tokens, setting))
                first = [sample.value for sample in samples if sample.metric == "first_token_ms"]
                name = f"{samples[0].impl} {samples[0].form}"
                say(f"round {number}: {name}, {tokens} tokens: first token after {min(first):.0f} ms at best")
                yield from samples


# --- results ---


def by_case(samples):
    """{(impl, form, tokens): {(path, metric): values}}, in the order of measuring."""
    cases = {}
    for sample in samples:
        case = cases.setdefault((sample.impl, sample.form, sample.tokens), {})
        case.setdefault((sample.path, sample.metric), []).append(sample.value)
    return cases


def records_of(samples, setting, origins):
    """origins: {impl: its cpu, isa and commit}"""
    for (impl, form, tokens), case in by_case(samples).items():
        for (path, metric), values in case.items():
            params = {"model": setting.model.name, "form": form, "tokens": tokens, "path": path}
            params.update(threads=setting.threads, samples=len(values))
            yield record("tiers", impl, params, metric, statistics.median(values), origins[impl])


def report_of(samples, setting):
    cases = by_case(samples)
    text = (
        f"A prompt kept and had back, ms: {setting.model.name}, threads: {setting.threads}, medians of "
        f"{setting.rounds} rounds (lowest to highest). Computed: without anything kept. Saved: llama.cpp's slot, left to "
        f"the operating system; Kvist's session, durable. Resumed: restored slot; new cache from the disk tier, "
        f"verified. First token: resumed and one step. From memory: llama.cpp's prompt cache (it takes the prompt in "
        f"the slot away first; with HTTP); Kvist's sharing."
    )
    rows = [_row(case, cases[case]) for case in sorted(cases, key=lambda case: case[2])]
    return text + "\n\n" + markdown(["tokens", "", *COLUMNS], rows)


def _row(case, metrics):
    impl, form, tokens = case
    cells = [_cell(title, metrics.get(keys[impl == "kvist"])) for title, keys in COLUMNS.items()]
    return [f"{tokens:,}", f"{'Kvist' if impl == 'kvist' else impl} {form}", *cells]


def _cell(title, values):
    if values is None:
        return "-"
    median = statistics.median(values)
    if title == "MB":
        return f"{median / 1e6:.1f}"
    return f"{median:,.1f} ({min(values):,.1f} to {max(values):,.1f})" if len(values) > 1 else f"{median:,.1f}"
