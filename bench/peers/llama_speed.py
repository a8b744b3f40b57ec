# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The Kvist authors
"""Decode and prefill at depth: llama-bench and `kvist bench` in turns on one machine, with one model file.

A round measures everyone once at each depth; every second round goes the other way about, so that nobody always comes
first. llama-bench computes the tokens up to the depth; it keeps them for its repetitions, and for decode and prefill at
one depth, so those are measured in one call. Kvist fills the depth without computing it.
"""

import collections
import dataclasses
import json
import statistics
import time

from kv_types import KvType
from peer import PeerError, markdown, record, run, say

BENCHES = ("decode", "prefill")
REPETITIONS = 2  # within a measurement, of everyone; beside filling they cost llama-bench little


@dataclasses.dataclass(frozen=True)
class Setting:
    """What is the same for everyone."""

    model: object  # peer.Model
    bench_to_tokens: dict  # of the benches that were asked for: {"decode": 32, "prefill": 512}
    threads: int
    rounds: int


@dataclasses.dataclass(frozen=True)
class Sample:
    """One measurement."""

    bench: str
    depth: int
    name: str  # of the contestant
    impl: str
    params: dict
    tokens_per_s: float


@dataclasses.dataclass(frozen=True)
class Llama:
    """llama-bench with one way to keep keys and values."""

    program: object  # path of llama-bench
    kv: KvType
    flash: bool

    @property
    def name(self):
        return f"llama.cpp {self.kv.name}" + (" FA" if self.flash else "")

    def measure(self, depth, benches, setting):
        tokens = {bench: setting.bench_to_tokens[bench] if bench in benches else 0 for bench in BENCHES}
        command = [self.program, "-m", setting.model.path, "-d", depth, "-t", setting.threads, *self.kv.options]
        command += ["-fa", int(self.flash), "-n", tokens["decode"], "-p", tokens["prefill"]]
        command += ["-r", REPETITIONS, "-o", "json"]
        advice = "leave this type or depth out, or run the command with -v for more: " + " ".join(map(str, command))
        printed, _ = run(command, f"{self.name} at depth {depth}", advice)
        for result in json.loads(printed):
            bench = "decode" if result["n_gen"] else "prefill"
            params = {"model": setting.model.name, "form": self.kv.name, "flash_attention": self.flash, "depth": depth}
            params.update(threads=setting.threads, tokens=tokens[bench])
            yield Sample(bench, depth, self.name, "llama.cpp", params, statistics.median(result["samples_ts"]))


@dataclasses.dataclass(frozen=True)
class Ours:
    """`kvist bench`, which takes its forms in turns itself."""

    kvist: object  # peer.Kvist
    forms: str
    name: str = "Kvist"

    def measure(self, depth, benches, setting):
        for bench in benches:
            arguments = ["bench", bench, "-m", setting.model.path, "--form", self.forms, "--depth", depth]
            arguments += ["--threads", setting.threads, "--tokens", setting.bench_to_tokens[bench]]
            arguments += ["--rounds", REPETITIONS]
            for found in self.kvist.ask(*arguments):
                if found["metric"] == "tokens_per_s":
                    name = f"{self.name} {found['params']['form']}"
                    yield Sample(bench, depth, name, found["impl"], found["params"], found["value"])


def contestants_of(kvist, forms, llama_bench, types):
    """Kvist, and llama.cpp without and with flash attention, without which it can't read a quantised V."""
    ways = [(kv, flash) for kv in types for flash in (False, True) if flash or not kv.needs_flash]
    return [Ours(kvist, forms)] + [Llama(llama_bench, kv, flash) for kv, flash in ways]


def cases_of(depths, setting):
    """{depth: the benches that are run there}, by depth. Where a depth leaves too little of the context for prefill's
    tokens, prefill is measured as deep as they fit."""
    depth_to_benches = collections.defaultdict(list)
    for bench, tokens in setting.bench_to_tokens.items():
        deepest = setting.model.context - tokens
        for depth in depths:
            fitting = min(depth, deepest) if bench == "prefill" and depth < setting.model.context else depth
            if not 0 <= fitting <= deepest:
                raise PeerError(
                    f"{tokens} tokens at a depth of {depth} don't fit the context of {setting.model.name}, "
                    f"{setting.model.context} tokens; give lower --depths or fewer tokens."
                )
            if bench not in depth_to_benches[fitting]:
                depth_to_benches[fitting].append(bench)
    return dict(sorted(depth_to_benches.items()))


def measure(contestants, depths, setting):
    """Gives the samples, round by round."""
    cases = cases_of(depths, setting)
    filled = sum(cases) * (len(contestants) - 1)
    say(
        f"rounds: {setting.rounds}, depths: {', '.join(map(str, cases))}. llama.cpp computes {filled:,} tokens a round "
        f"to get there, which takes most of the time; after the first round you see how long the rest takes"
    )
    started = time.monotonic()
    for number in range(1, setting.rounds + 1):
        for depth, benches in cases.items():
            for contestant in contestants if number % 2 else reversed(contestants):
                for sample in contestant.measure(depth, benches, setting):
                    say(f"round {number}: {sample.name}, {sample.bench} at {depth}: {sample.tokens_per_s:.1f} tokens/s")
                    yield sample
        minutes = (time.monotonic() - started) / 60
        left = minutes / number * (setting.rounds - number)
        say(f"round {number} of {setting.rounds} is done after {minutes:.1f} minutes; about {left:.0f} are left")


# --- results ---


def by_case(samples):
    """{(bench, depth): {contestant's name: its samples}}, both in the order of measuring the first round."""
    cases = {}
    for sample in samples:
        cases.setdefault((sample.bench, sample.depth), {}).setdefault(sample.name, []).append(sample)
    return cases


def median_of(samples):
    return statistics.median(sample.tokens_per_s for sample in samples)


def records_of(samples, origins):
    """origins: {impl: its cpu, isa and commit}"""
    for (bench, _), names in by_case(samples).items():
        for group in names.values():
            first = group[0]
            params = {**first.params, "rounds": len(group)}
            yield record(bench, first.impl, params, "tokens_per_s", median_of(group), origins[first.impl])


def report_of(samples, setting):
    """A table for each bench, and how steady the rounds were. Samples of a run that was stopped may miss some."""
    cases = by_case(samples)
    groups = [group for names in cases.values() for group in names.values()]
    rounds = " to ".join(map(str, sorted({min(map(len, groups)), max(map(len, groups))})))
    parts = []
    for bench, tokens in setting.bench_to_tokens.items():
        parts.append(
            f"{bench.capitalize()} of {tokens} tokens at depth, tokens/s: {setting.model.name}, threads: "
            f"{setting.threads}, rounds of which this is the median: {rounds}. FA: with flash attention; in brackets: "
            f"times the fastest llama.cpp of the line."
        )
        parts.append(_table({depth: names for (of_bench, depth), names in cases.items() if of_bench == bench}))
    spreads = [_spread(group) for group in groups]
    worst, typical = max(spreads), statistics.median(spreads)
    parts.append(f"Over the rounds a value moved by {worst:.0%} of itself at most, by {typical:.0%} typically.")
    return "\n\n".join(parts)


def _table(depth_to_names):
    columns = list(dict.fromkeys(name for names in depth_to_names.values() for name in names))
    columns.sort(key=lambda name: not name.startswith("llama.cpp"))  # theirs first; else as they were
    rows = []
    for depth, names in depth_to_names.items():
        theirs = [median_of(group) for group in names.values() if group[0].impl == "llama.cpp"]
        best = max(theirs, default=None)
        rows.append([f"{depth:,}"] + [_cell(names.get(name), best) for name in columns])
    return markdown(["depth", *columns], rows)


def _cell(group, best):
    if group is None:
        return "-"
    value = median_of(group)
    is_compared = group[0].impl != "llama.cpp" and best is not None
    return f"{value:.1f} ({value / best:.2f}x)" if is_compared else f"{value:.1f}"


def _spread(samples):
    values = [sample.tokens_per_s for sample in samples]
    return (max(values) - min(values)) / median_of(samples)
