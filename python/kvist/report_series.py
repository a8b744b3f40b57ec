# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The Kvist authors
"""How lines of quality look: a colour and marker for each policy, dashes for each budget shape, a tint for each form;
and their axes."""

import math

from matplotlib import ticker
from matplotlib.colors import to_rgb
from matplotlib.lines import Line2D

from report_drawing import origin_text
from report_metrics import number_text
from report_quality import FULL, PAGES
from report_quality_tables import facts_of

_POLICIES = {
    FULL: ("#000000", "o"),
    PAGES: ("#5d7a00", "h"),
    "window": ("#56b4e9", "s"),
    "random": ("#8f8f8f", "X"),
    "article-norm": ("#d55e00", "v"),
    "knorm": ("#e0a100", "^"),
    "keydiff": ("#8a5a32", "<"),
    "tova": ("#e377c2", ">"),
    "h2o": ("#0057b7", "D"),
    "snapkv": ("#009e73", "P"),
    "expected": ("#7b3fa0", "p"),
    "kvzip": ("#c1121f", "*"),
}
_SPARE = (("#00798c", "d"), ("#a0325f", "H"), ("#4b4b8f", "8"))
_SIZES = {"*": 11, "X": 7.5, "P": 7.5, "p": 8, "D": 6}
_DASHES = {
    "": "-",
    "uniform": "-",
    "adaptive": (0, (5, 2)),
    "global": (0, (6, 1.6, 1.2, 1.6)),
    "pyramid": (0, (1.2, 1.4)),
}


class Look:
    """How the cases of one section are drawn, the same in each of its figures."""

    def __init__(self, section, tints_forms):
        unknown = sorted({row.case.policy for row in section.rows} - _POLICIES.keys())
        self._policies = {**_POLICIES, **{name: _SPARE[i % len(_SPARE)] for i, name in enumerate(unknown)}}
        self._forms = section.forms
        self._has_tints = tints_forms and len(self._forms) > 1

    def line(self, method):
        policy, shape = method
        return {"color": self._policies[policy][0], "linestyle": _dashes(shape)}

    def colour(self, method):
        return self._policies[method[0]][0]

    def marker(self, method, form):
        """The fewer the form's bits, the lighter."""
        colour, marker = self._policies[method[0]]
        face = _tint(colour, self._lightness(form))
        return {
            "marker": marker,
            "markersize": _SIZES.get(marker, 6.5),
            "markerfacecolor": face,
            "markeredgecolor": colour,
        }

    def handles(self, words, methods, full_text):
        """A legend's handles of policies, shapes and forms: {heading: handles}, without what tells nothing apart."""
        policies = list(dict.fromkeys(policy for policy, _ in methods))
        shapes = list(dict.fromkeys(shape for _, shape in methods if shape))
        heading = words("legend policies") if policies != [FULL] else ""
        names = {FULL: full_text, PAGES: words("pages read")}
        groups = {heading: [self._policy_handle(policy, names.get(policy, policy)) for policy in policies]}
        if len(shapes) > 1:
            groups[words("legend shapes")] = [_shape_handle(shape) for shape in shapes]
        if self._has_tints:
            groups[words("legend forms")] = [self._form_handle(form) for form in self._forms]
        return groups

    def _policy_handle(self, policy, name):
        style = {**self.line((policy, "")), **self.marker((policy, ""), self._forms[0])}
        return Line2D([], [], linewidth=1.6, label=name, **style)

    def _form_handle(self, form):
        face = _tint("#555555", self._lightness(form))
        style = {"marker": "o", "markersize": 8, "markerfacecolor": face, "markeredgecolor": "#555555"}
        return Line2D([], [], linestyle="", label=form, **style)

    def _lightness(self, form):
        return self._forms.index(form) / (len(self._forms) - 1) if self._has_tints else 0


def _shape_handle(shape):
    return Line2D([], [], linewidth=1.6, color="#555555", linestyle=_dashes(shape), label=shape)


def _dashes(shape):
    return _DASHES.get(shape, (0, (3, 1, 1, 1, 1, 1)))


def _tint(colour, lightness):
    return tuple(part + (1 - part) * lightness for part in to_rgb(colour))


SERIES_COLOURS = (
    "#0057b7",
    "#d55e00",
    "#009e73",
    "#7b3fa0",
    "#e0a100",
    "#c1121f",
    "#56b4e9",
    "#8a5a32",
    "#e377c2",
    "#000000",
)
SERIES_MARKERS = ("o", "s", "D", "^", "v", "P", "X", "<", ">", "*")


def series_style(index):
    """Of lines that have no look of their own."""
    colour = SERIES_COLOURS[index % len(SERIES_COLOURS)]
    return {"color": colour, "marker": SERIES_MARKERS[index % len(SERIES_MARKERS)], "markersize": 5, "linewidth": 1.5}


# --- axes ---


def set_log_axis(axis, low, high, text=None):
    """From low to high, with few round numbers; text(value) writes one."""
    getattr(axis.axes, f"set_{axis.axis_name}scale")("log")
    getattr(axis.axes, f"set_{axis.axis_name}lim")(low, high)
    axis.set_major_locator(ticker.FixedLocator(log_ticks(low, high)))
    axis.set_minor_locator(ticker.NullLocator())
    axis.set_major_formatter(ticker.FuncFormatter(lambda value, _: (text or number_text)(value)))


def log_limits(values, share=0.06, decades=0.02, below=1.0):
    """Around values above 0: a share of their range and some decades more at the upper end, below times as much at the
    lower one. Never more than _MOST_DECADES, lest one odd value hide all others."""
    high = math.log10(max(values))
    low = max(math.log10(min(values)), high - _MOST_DECADES)
    room = share * (high - low) + decades
    return 10 ** (low - below * room), 10 ** (high + room)


_MOST_DECADES = 15


def log_ticks(low, high, most=8):
    """Round numbers of [low, high], no more than most where powers of ten allow it."""
    decades = range(math.floor(math.log10(low)) - 1, math.ceil(math.log10(high)) + 1)
    for steps in (
        (1, 1.2, 1.4, 1.6, 1.8, 2, 2.5, 3, 3.5, 4, 5, 6, 7, 8, 9),
        (1, 1.5, 2, 3, 4, 5, 7),
        (1, 2, 5),
        (1, 3),
        (1,),
    ):
        ticks = [float(f"{step}e{decade}") for decade in decades for step in steps]
        ticks = [tick for tick in ticks if low <= tick <= high]
        if len(ticks) <= most:
            break
    return ticks[:: -(-len(ticks) // most)] if ticks else [low]


def finish_axes(axes):
    axes.set_axisbelow(True)
    axes.grid(color="#e6e6e6", linewidth=0.8)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    axes.tick_params(which="both", length=0)


# --- text ---


def add_notes(sheet, section, words, notes):
    """Below the panels: the notes, and at the bottom what was measured where."""
    sheet.add_line(origin_text(section.origin), size=8)
    sheet.add_list([f"{name} {text}" for name, text in facts_of(section, words)[: len(section.settings)]], size=8)
    for note in notes:
        sheet.add_line(note)


def section_texts(section, words):
    """The characters of what may be written into its figures, beside the report's words."""
    texts = [origin_text(section.origin)]
    texts += [text for pair in facts_of(section, words) for text in pair]
    for row in section.rows:
        texts += [row.case.form, row.case.policy, row.case.shape, row.case.test, row.case.stream]
    return set("".join(texts))
