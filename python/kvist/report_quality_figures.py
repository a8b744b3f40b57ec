# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The Kvist authors
"""Draws quality against bytes: a point for each case, the Pareto front below them."""

import dataclasses
import math

from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from matplotlib.patheffects import withStroke
from matplotlib.text import Text

from report_drawing import INK, Drawing, Sheet
from report_line_figures import draw_pages
from report_metrics import MIB, number_text
from report_quality import FULL, is_point, pareto_front
from report_quality_tables import f16_bytes, keep_text, method_text
from report_series import Look, add_notes, finish_axes, log_limits, section_texts, set_log_axis

FRONT_COLOUR = "#b9b9b9"
_CLOSER = 1.8  # times as many decades of KL have to be seen before the policies get a panel of their own


def texts_of(section, words):
    return section_texts(section, words)


def draw_section(section, words):
    points = [row for row in section.rows if is_point(row)]
    if len(points) > 1:
        title = words("quality against bytes")
        yield Drawing(section.kind, title, _figure(section, points, title, words))
    if section.kind == "retention":
        yield from draw_pages(section, words)


def _figure(section, points, title, words):
    whole = _frame_of(points)
    closer = _closer_frame(points, whole)
    look = Look(section, tints_forms=section.kind == "retention")
    methods = list(dict.fromkeys(row.case.method for row in points))
    sheet = Sheet(15.5 if closer else 11.5, 7.6, title)
    notes = [words("joined")] + [words("at the edge")] * any(map(whole.is_zero, points))
    add_notes(sheet, section, words, notes)
    groups = look.handles(words, methods, words("forms alone"))
    front = Line2D([], [], color=FRONT_COLOUR, linewidth=5, label=words("front"))
    sheet.add_side_legend({**groups, " ": [front]})
    ratios = {"width_ratios": (0.8, 1)} if closer else None
    panels = sheet.figure.subplots(1, 2 if closer else 1, squeeze=False, gridspec_kw=ratios)[0]
    reference = f16_bytes(section)
    for axes, frame in zip(panels, (whole, closer)):
        _panel(axes, points, frame, look, words)
        _share_axis(axes, reference, words)
    if closer:
        panels[0].set_title(words("everything"), loc="left")
        panels[1].set_title(words("closer"), loc="left")
        panels[0].add_patch(_outline(closer))
        panels[1].set_ylabel("")
    sheet.lay_out()
    for axes, frame in zip(panels, (whole, closer)):
        _label_points(axes, points, frame, look, words, is_whole=frame is whole and bool(closer))
    return sheet.png()


# --- frames ---


@dataclasses.dataclass(frozen=True)
class _Frame:
    """What a panel shows: x in MiB, y in nats."""

    left: float
    right: float
    bottom: float
    top: float
    zero: float  # where a KL of zero, or next to it, is drawn: at the lower edge of the panel of everything

    def place(self, row):
        return row.value("kv_bytes") / MIB, max(row.value("kl_mean"), self.zero)

    def is_zero(self, row):
        return row.value("kl_mean") <= self.zero

    def holds(self, row):
        x, y = self.place(row)
        return self.left <= x <= self.right and self.bottom <= y <= self.top

    @property
    def decades(self):
        return math.log10(self.top / self.bottom)


def _frame_of(rows):
    """With more room at the left and below, where labels are."""
    means = [row.value("kl_mean") for row in rows if row.value("kl_mean") > 0] or [1e-9]
    tops = [row.value("kl_mean") + (row.value("kl_se") or 0) for row in rows if row.value("kl_mean") > 0]
    left, right = log_limits([row.value("kv_bytes") / MIB for row in rows], share=0.07, below=2.2)
    bottom, top = log_limits(means + tops, decades=0.04, below=1.6)
    return _Frame(left, right, bottom, top, zero=bottom)


def _closer_frame(points, whole):
    """Where tokens are given up, when that is a small part of the whole, or None."""
    kept = [row for row in points if row.case.policy != FULL and row.value("kl_mean") > 0]
    if len(kept) < 2 or len(kept) == len(points):
        return None
    frame = dataclasses.replace(_frame_of(kept), zero=whole.zero)
    return frame if whole.decades > _CLOSER * frame.decades else None


def _outline(frame):
    width, height = frame.right - frame.left, frame.top - frame.bottom
    return Rectangle(
        (frame.left, frame.bottom), width, height, fill=False, edgecolor="#999999", linewidth=0.8, linestyle=":"
    )


# --- panels ---


def _panel(axes, points, frame, look, words):
    set_log_axis(axes.xaxis, frame.left, frame.right)
    set_log_axis(axes.yaxis, frame.bottom, frame.top, _nats_text)
    axes.set_xlabel(words("axis bytes"))
    axes.set_ylabel(words("axis kl"))
    finish_axes(axes)
    _draw_front(axes, pareto_front(points), frame)
    methods = {}
    for row in points:
        methods.setdefault(row.case.method, []).append(row)
    for method, rows in methods.items():
        line = [frame.place(row) for row in pareto_front(rows)]
        style = look.line(method)
        order = 4 if method[0] == FULL else 3
        axes.plot(*zip(*line), linewidth=1.8 if method[0] == FULL else 1.2, alpha=0.85, zorder=order, **style)
        for row in rows:
            if frame.holds(row):
                _draw_point(axes, row, frame, look, order)


def _draw_point(axes, row, frame, look, order):
    x, y = frame.place(row)
    error = row.value("kl_se")
    if error and not frame.is_zero(row):
        ends = max(y - error, frame.bottom), y + error
        axes.plot((x, x), ends, color=look.colour(row.case.method), linewidth=0.9, alpha=0.45, zorder=order)
    style = look.marker(row.case.method, row.case.form)
    axes.plot(x, y, linestyle="", zorder=order + 1, clip_on=not frame.is_zero(row), **style)
    if frame.is_zero(row):
        style = {"ha": "right", "va": "bottom", "fontsize": 9, "color": INK}
        axes.annotate("0", (x, y), (-7, 3), textcoords="offset points", **style)


def _draw_front(axes, front, frame):
    """The least KL that can be had with so many bytes: steps."""
    xs, ys = zip(*(frame.place(row) for row in front))
    xs, ys = (xs[0], *xs, frame.right), (frame.top, *ys, ys[-1])
    axes.plot(
        xs, ys, drawstyle="steps-post", color=FRONT_COLOUR, linewidth=5, alpha=0.6, zorder=2, solid_joinstyle="round"
    )


def _share_axis(axes, reference, words):
    """At the top, where it is known what f16 takes."""
    if not reference:
        return
    whole = reference / MIB
    top = axes.secondary_xaxis("top", functions=(lambda x: x / whole, lambda x: x * whole))
    low, high = (bound / whole for bound in axes.get_xlim())
    set_log_axis(top.xaxis, low, high, lambda share: f"{number_text(100 * share)} %")
    top.set_xlabel(words("axis share"), fontsize=9)
    top.tick_params(length=0, labelsize=8.5, labelcolor="#777777")
    top.spines["top"].set_visible(False)


def _nats_text(value):
    return f"{value:g}" if value >= 1e-4 else f"{value:.0e}".replace("e-0", "e-")


# --- labels ---

# Where a label may stand from its point, in points, the nearest first: below and left of the front there is nothing.
_BELOW = [(-reach, -0.8 * reach, "right", "top") for reach in (6, 14, 24, 36, 50)]
_BELOW += [(-1.6 * reach, 0, "right", "center") for reach in (6, 14, 24)]
_BELOW += [(0, -1.6 * reach, "center", "top") for reach in (6, 14, 24)]
_ABOVE = [(reach, 0.8 * reach, "left", "bottom") for reach in (6, 14, 24)]
_ABOVE += [(1.4 * reach, 0, "left", "center") for reach in (6, 14)]


def _label_points(axes, points, frame, look, words, is_whole):
    """Names the front's points and the forms alone, as far as there is room; the table has all. In the panel of
    everything that stands beside a closer one only the forms alone are named."""
    several_forms = len({row.case.form for row in points}) > 1
    front = [row for row in pareto_front(points) if row.case.policy == FULL or not is_whole]
    alone = [row for row in points if row.case.policy == FULL and row not in front]
    renderer = axes.figure.canvas.get_renderer()
    taken = [_box_around(axes, row, frame) for row in points if frame.holds(row)]
    for row in filter(frame.holds, front + alone):
        text = _label_text(row, several_forms, words)
        places = _BELOW + _ABOVE if row in front else _ABOVE + _BELOW
        _place_label(axes, text, frame.place(row), places, look.colour(row.case.method), taken, renderer)


def _label_text(row, several_forms, words):
    case = row.case
    if case.policy == FULL:
        return case.form
    return f"{method_text(words, case.method)} {keep_text(case.keep)}" + f", {case.form}" * several_forms


def _box_around(axes, row, frame):
    x, y = axes.transData.transform(frame.place(row))
    reach = 9  # pixels
    return (x - reach, y - reach, x + reach, y + reach)


def _place_label(axes, text, point, places, colour, taken, renderer):
    inside = axes.get_window_extent(renderer)
    for dx, dy, horizontal, vertical in places:
        is_far = math.hypot(dx, dy) > 12
        arrow = (
            {"arrowstyle": "-", "color": "#999999", "linewidth": 0.6, "shrinkA": 0, "shrinkB": 3} if is_far else None
        )
        style = {"ha": horizontal, "va": vertical, "fontsize": 8.5, "color": colour, "arrowprops": arrow, "zorder": 8}
        label = axes.annotate(text, point, (dx, dy), textcoords="offset points", **style)
        label.set_path_effects([withStroke(linewidth=2.5, foreground="white")])
        label.update_positions(renderer)
        extent = Text.get_window_extent(label, renderer)  # without its arrow
        box = (extent.x0 - 2, extent.y0 - 2, extent.x1 + 2, extent.y1 + 2)
        is_free = not any(_overlap(box, other) for other in taken)
        if is_free and inside.x0 <= box[0] and box[2] <= inside.x1 and inside.y0 <= box[1] and box[3] <= inside.y1:
            taken.append(box)
            return
        label.remove()


def _overlap(a, b):
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]
