# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The Kvist authors
"""How metrics are shown, in figures and in tables alike."""

import dataclasses
import math

MIB = 1 << 20


@dataclasses.dataclass(frozen=True)
class Metric:
    unit: str  # a key of the words "unit ..."
    factor: float = 1  # from the value in the results to the one that is shown
    may_be_negative: bool = False


METRICS = {  # of the growth benchmark, in the order of a table's columns
    "tokens": Metric("tokens"),
    "refused_at": Metric("tokens"),
    "live_bytes": Metric("MiB", 1 / MIB),
    "committed_bytes": Metric("MiB", 1 / MIB),
    "peak_bytes": Metric("MiB", 1 / MIB),
    "cumulative_bytes": Metric("MiB", 1 / MIB),
    "copied_bytes": Metric("MiB", 1 / MIB),
    "resizes": Metric("times"),
    "stalls": Metric("times"),
    "utilisation": Metric("%", 100),
    "peak_utilisation": Metric("%", 100),
    "least_utilisation": Metric("%", 100),
    "efficiency": Metric("score"),
    "total_ms": Metric("ms"),
    "append_max_ms": Metric("ms"),
    "append_p999_ms": Metric("ms"),
    "mean_growth": Metric("ratio"),
    "stability": Metric("ratio"),
}
QUALITY_METRICS = {  # of `kvist eval`, likewise
    "held_tokens": Metric("tokens"),
    "read_tokens": Metric("tokens"),
    "kv_bytes": Metric("MiB", 1 / MIB),
    "share_of_f16": Metric("%", 100),  # of bytes; made from the others
    "bits": Metric("bits"),
    "total_bits": Metric("bits"),
    "kl_mean": Metric("nats", may_be_negative=True),  # by rounding
    "kl_se": Metric("nats"),
    "kl_median": Metric("nats", may_be_negative=True),
    "kl_p99": Metric("nats", may_be_negative=True),
    "kl_max": Metric("nats", may_be_negative=True),
    "same_top": Metric("%", 100),
    "perplexity": Metric("ratio"),
    "base_perplexity": Metric("ratio"),
    "no_prefix_perplexity": Metric("ratio"),
    "ln_perplexity_difference": Metric("nats", may_be_negative=True),
    "ln_perplexity_difference_se": Metric("nats"),
    "recovered": Metric("%", 100, may_be_negative=True),
    "found": Metric("%", 100),
    "tokens_right": Metric("%", 100),
    "ln_probability": Metric("nats", may_be_negative=True),
    "no_context_ln_probability": Metric("nats", may_be_negative=True),
    "slides": Metric("times"),
    "recomputed_tokens": Metric("tokens"),
    "peak_kv_bytes": Metric("MiB", 1 / MIB),
    "tokens_per_s": Metric("tokens/s"),
    "tokens": Metric("tokens"),
    "evict_s": Metric("s"),
    "prefill_s": Metric("s"),
    "observed_prefill_s": Metric("s"),
    "repetition_s": Metric("s"),
}


def shown_value(metric, value):
    """The value in the metric's unit."""
    how = METRICS.get(metric) or QUALITY_METRICS.get(metric)
    return value * how.factor if how else value


def number_text(value):
    """Three digits of it, all of a large one's whole part: 0.00123, 12.3, 1,234."""
    if value == 0:
        return "0"
    if value < 0:
        return f"-{number_text(-value)}"
    if value >= 1e15 or value < 1e-6:
        return f"{value:.2e}"
    decimals = max(0, 2 - math.floor(math.log10(value)))
    text = f"{value:,.{decimals}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def contestant_text(words, who):
    """What a cache is called; the options of its policy, where they tell it from others, after a line break."""
    name = words.name("impl", who.impl) + (f" {words.name('kind', who.kind)}" if who.kind else "")
    return f"{name}\n{who.options}" if who.options else name


def scenario_text(words, scenario):
    details = words("comma").join(f"{words.name('detail', key)} {value}" for key, value in scenario.details)
    name = words.name("scenario", scenario.name)
    return f"{name} ({details})" if details else name
