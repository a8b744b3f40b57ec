# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The Kvist authors
"""How the metrics of the growth benchmark are shown, in figures and in tables alike."""

import dataclasses
import math

MIB = 1 << 20


@dataclasses.dataclass(frozen=True)
class Metric:
    unit: str  # a key of the words "unit ..."
    factor: float = 1  # from the value in the results to the one that is shown


METRICS = {  # in the order of a table's columns
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


def shown_value(metric, value):
    """The value in the metric's unit."""
    return value * METRICS[metric].factor if metric in METRICS else value


def number_text(value):
    """Three digits of it, all of a large one's whole part: 0.00123, 12.3, 1,234."""
    if value == 0:
        return "0"
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
