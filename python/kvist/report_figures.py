# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The Kvist authors
"""Draws the figures of the growth benchmark: bars."""

import dataclasses

from matplotlib import ticker
from matplotlib.colors import to_rgb
from matplotlib.patches import Patch

from report_drawing import INK, Drawing, Sheet, origin_text
from report_metrics import METRICS, contestant_text, number_text, scenario_text, shown_value

LOG_SPAN = 30  # values further apart than this are shown on a log scale
HATCH = "/////"


# --- colours ---

# A hue for each policy: strong for ours, muted for the article's design of that name. Neighbours differ in lightness,
# too, so that they can be told apart without the hue.
_COLOURS = {
    ("article-static", ""): "#e8cdb8",
    ("article-dynamic", ""): "#93b3a3",
    ("copy-and-grow", ""): "#b7c9a0",
    ("article-predictive", ""): "#8d7a94",
    ("article-hierarchical", ""): "#c4c8cc",
    ("article-compressed", ""): "#646b73",
    ("kvist", "exact"): "#0072b2",
    ("kvist", "static"): "#d55e00",
    ("kvist", "dynamic"): "#009e73",
    ("kvist", "predictive"): "#8b1a7b",
    ("kvist", "learned"): "#f0b400",
}
_SPARE_COLOURS = ("#56b4e9", "#000000", "#cc79a7", "#999933")


def colours_of(contestants):
    """{contestant: colour}: by implementation and policy, so that it is the same in every figure; several of one policy
    get lighter."""
    colours = {}
    num_of_kind = {}
    for who in contestants:
        kind = (who.impl, who.kind)
        index = num_of_kind.setdefault(kind, 0)
        num_of_kind[kind] += 1
        spare = _SPARE_COLOURS[(len(num_of_kind) - 1) % len(_SPARE_COLOURS)]
        colours[who] = _lighter(_COLOURS.get(kind, spare), index)
    return colours


def _lighter(colour, steps):
    return tuple(1 - (1 - part) * 0.62**steps for part in to_rgb(colour))


# --- panels ---


@dataclasses.dataclass(frozen=True)
class _Scale:
    low: float
    high: float
    is_log: bool
    has_zeros: bool


def _scale_of(values, always_log=False):
    positive = [value for value in values if value > 0]
    has_zeros = len(positive) < len(values)
    if not positive:
        return _Scale(0, 1, False, has_zeros)
    low, high = min(positive), max(positive)
    if always_log or high / low > LOG_SPAN:
        return _Scale(max(low, high * 1e-12) / 2, high, True, has_zeros)
    return _Scale(0, high, False, has_zeros)


def _set_axis(axis, set_limits, scale, unit, room):
    """room: how much of the axis stays free beyond the longest bar."""
    if scale.is_log:
        set_limits(scale.low, scale.high * (scale.high / scale.low) ** room)
        few_decades = scale.high / scale.low < 1e3
        axis.set_major_locator(ticker.LogLocator(subs=(1, 2, 5) if few_decades else (1,), numticks=12))
        axis.set_minor_formatter(ticker.NullFormatter())
    else:
        set_limits(0, scale.high * (1 + room))
        axis.set_major_locator(ticker.MaxNLocator(6, steps=[1, 2, 2.5, 5, 10], integer=unit == "times"))
    axis.set_major_formatter(ticker.FuncFormatter(lambda value, _: f"{value:,.12g}"))


def _unit_text(words, metric, scale):
    parts = [words(f"unit {METRICS[metric].unit}")] + [words("log scale")] * scale.is_log
    return words("comma").join(parts)


def _values_of(table, metric):
    """{(contestant, scenario): value as shown}, without what was not measured."""
    values = {run: metrics.get(metric) for run, metrics in table.runs.items()}
    return {run: shown_value(metric, value) for run, value in values.items() if value is not None}


def _grouped_panel(axes, table, metric, words, always_log=False):
    """A group of bars for each scenario, in it one for each cache, ours a little apart."""
    values = _values_of(table, metric)
    scale = _scale_of(list(values.values()), always_log)
    colours = colours_of(table.contestants)
    place_of = {}
    for who in table.contestants:
        place_of[who] = len(place_of) + 0.6 * who.is_ours
    width = 0.86 / (max(place_of.values()) + 1)
    axes.set_yscale("log" if scale.is_log else "linear")
    _set_axis(axes.yaxis, axes.set_ylim, scale, METRICS[metric].unit, room=0.12)
    for (who, scenario), value in values.items():
        x = table.scenarios.index(scenario) - 0.43 + width * (place_of[who] + 0.5)
        if value > 0:
            axes.bar(x, value, width * 0.94, color=colours[who], **_edge(table.ran_full(who, scenario)))
        text = f"{table.mark(who, scenario)}\n{'0' * (value == 0)}".strip()
        _mark(axes, text, (x, max(value, scale.low)), (0, 2), ha="center", va="bottom")
    axes.set_xticks(range(len(table.scenarios)), [scenario_text(words, each) for each in table.scenarios])
    axes.tick_params(axis="x", length=0)
    for i in range(1, len(table.scenarios)):
        axes.axvline(i - 0.5, color="#dddddd", linewidth=0.8, zorder=0)
    axes.set_xlim(-0.5, len(table.scenarios) - 0.5)
    axes.set_ylabel(_unit_text(words, metric, scale))
    _clean(axes, "y")
    return scale


def _listed_panel(axes, table, scenario, metric, words, always_log=False):
    """One bar for each cache, its value written beside it."""
    values = {who: value for (who, each), value in _values_of(table, metric).items() if each == scenario}
    scale = _scale_of(list(values.values()), always_log)
    colours = colours_of(table.contestants)
    axes.set_xscale("log" if scale.is_log else "linear")
    _set_axis(axes.xaxis, axes.set_xlim, scale, METRICS[metric].unit, room=0.24)
    for who, value in values.items():
        y = table.contestants.index(who)
        if value > 0:
            axes.barh(y, value, 0.74, color=colours[who], **_edge(table.ran_full(who, scenario)))
        text = f"{number_text(value)} {table.mark(who, scenario)}"
        _mark(axes, text, (max(value, scale.low), y), (4, 0), ha="left", va="center", fontsize=9)
    axes.set_yticks(range(len(table.contestants)), [contestant_text(words, who) for who in table.contestants])
    axes.tick_params(axis="y", length=0)
    axes.set_ylim(len(table.contestants) - 0.4, -0.6)
    axes.set_title(words(f"panel {metric}"))
    axes.set_xlabel(_unit_text(words, metric, scale))
    _clean(axes, "x")
    return scale


def _edge(full):
    return {"hatch": HATCH, "edgecolor": INK, "linewidth": 0} if full else {"linewidth": 0}


def _mark(axes, text, place, offset, **style):
    style = {"fontsize": 7.5, "color": INK, **style}
    axes.annotate(text, place, offset, textcoords="offset points", annotation_clip=False, **style)


def _clean(axes, value_axis):
    axes.set_axisbelow(True)
    axes.grid(axis=value_axis, color="#e6e6e6", linewidth=0.8)
    for side in ("top", "right", "left" if value_axis == "y" else "bottom"):
        axes.spines[side].set_visible(False)
    axes.tick_params(axis=value_axis, which="both", length=0)


# --- figures ---


def _geometry_text(words, section):
    return words("geometry") + words("colon") + words.name("geometry", section.geometry)


def _finish(sheet, section, table, runs, scales, words, with_legend):
    """Adds what stands below the panels, from the bottom up."""
    sheet.add_line(f"{_geometry_text(words, section)} · {origin_text(section.origin)}", size=8)
    notes = [words("ran full")] * any(table.ran_full(*run) for run in runs)
    notes += [words("dropped tokens")] * any(table.dropped_tokens(*run) for run in runs)
    notes += [words("nothing there")] * any(scale.has_zeros for scale in scales)
    if notes:
        sheet.add_line("    ".join(notes))
    if with_legend:
        colours = colours_of(table.contestants)
        for is_ours in (True, False):
            group = [who for who in table.contestants if who.is_ours == is_ours]
            if group:
                sheet.add_legend([Patch(color=colours[who], label=contestant_text(words, who)) for who in group])
    return sheet.png()


def _grouped_figure(section, table, title, metrics, words, size, always_log=False):
    sheet = Sheet(*size, title)
    num_columns = min(2, len(metrics))
    panels = sheet.figure.subplots(-(-len(metrics) // num_columns), num_columns, squeeze=False).flat
    scales = []
    for axes, metric in zip(panels, metrics):
        scales.append(_grouped_panel(axes, table, metric, words, always_log))
        if len(metrics) > 1:  # else the figure's title says it
            axes.set_title(words(f"panel {metric}"))
    return _finish(sheet, section, table, table.runs, scales, words, with_legend=True)


def _listed_figure(section, table, scenario, title, metrics, words):
    num_lines = sum(1 + 0.6 * bool(who.options) for who in table.contestants)
    num_rows = -(-len(metrics) // 2)
    sheet = Sheet(13, 1.3 + num_rows * (1.0 + 0.33 * num_lines), title)
    panels = sheet.figure.subplots(num_rows, 2, squeeze=False)
    scales = []
    for i, (metric, always_log) in enumerate(metrics):
        axes = panels[i // 2][i % 2]
        scales.append(_listed_panel(axes, table, scenario, metric, words, always_log))
        if i % 2 == 1:  # the names stand at the left one
            axes.set_yticklabels([])
    runs = [run for run in table.runs if run[1] == scenario]
    return _finish(sheet, section, table, runs, scales, words, with_legend=False)


# Metrics of figures; in pairs: and whether on a log scale also where values are close together.
THE_ARTICLES = ("peak_bytes", "peak_utilisation", "resizes", "efficiency")
OF_APPENDING = (("append_max_ms", True), ("total_ms", False))
OF_A_TRACE = (("peak_bytes", False), ("utilisation", False), ("append_max_ms", False), ("copied_bytes", False))


def draw_section(section, words):
    """The drawings of a section, one after the other; their names are the section's own."""
    if table := section.tables.get("comprehensive"):
        title = words.name("table", table.name)
        width = max(15, 1.4 + 0.085 * 2 * len(table.scenarios) * (len(table.contestants) + 2))
        png = _grouped_figure(section, table, title, THE_ARTICLES, words, (width, 11.5))
        yield Drawing("comprehensive", title, png)
        for name, metric in (("worst-append", "append_max_ms"), ("bytes-copied", "copied_bytes")):
            title = words.name("table", table.name) + words("colon") + words(f"panel {metric}")
            png = _grouped_figure(section, table, title, (metric,), words, (max(11, width * 0.7), 6.5), always_log=True)
            yield Drawing(name, title, png)
    for name, metrics in (("append", OF_APPENDING), ("trace", OF_A_TRACE)):
        table = section.tables.get(name)
        for number, scenario in enumerate(table.scenarios if table else (), 1):
            title = words.name("table", name) + words("colon") + scenario_text(words, scenario)
            png = _listed_figure(section, table, scenario, title, metrics, words)
            yield Drawing(name if number == 1 else f"{name}-{number}", title, png)


def texts_of(section, words):
    """The characters of what may be written into its figures, beside the report's words."""
    texts = [origin_text(section.origin), section.geometry]
    for table in section.tables.values():
        texts += [scenario_text(words, each) for each in table.scenarios]
        texts += [contestant_text(words, each) for each in table.contestants]
    return set("".join(texts))
