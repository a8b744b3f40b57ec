# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The Kvist authors
"""Draws lines: recall by the share of tokens kept, KL by the tokens read, perplexity by the part of a text."""

from matplotlib import ticker
from matplotlib.lines import Line2D

from report_drawing import Drawing, Sheet
from report_quality import FULL
from report_quality_tables import keep_text, pages_text, panel_text, stream_text
from report_series import Look, add_notes, finish_axes, log_limits, section_texts, series_style, set_log_axis


def texts_of(section, words):
    return section_texts(section, words)


def draw_section(section, words):
    if section.kind == "pages":
        yield from draw_pages(section, words)
        return
    draw = {"recall": _draw_recall, "streams": _draw_streams}[section.kind]
    title = words("eval " + section.kind)
    png = draw(section, title, words)
    if png:
        yield Drawing(section.kind, title, png)


# --- recall ---


def _draw_recall(section, title, words):
    """A panel for each test, context and form."""
    panels = _recall_panels(section, words)
    methods = list(dict.fromkeys(row.case.method for rows in panels.values() for row in rows))
    if all(policy == FULL for policy, _ in methods):
        return None
    num_columns = min(2, len(panels))
    num_rows = -(-len(panels) // num_columns)
    sheet = Sheet(2.6 + 5.6 * num_columns, 1.9 + 4.0 * num_rows, title)
    add_notes(sheet, section, words, [])
    look = Look(section, tints_forms=False)
    sheet.add_side_legend(look.handles(words, methods, words("full cache")))
    all_axes = list(sheet.figure.subplots(num_rows, num_columns, squeeze=False).flat)
    for axes, (name, rows) in zip(all_axes, panels.items()):
        _recall_panel(axes, rows, look, words)
        axes.set_title(name, fontsize=11)
    for axes in all_axes[len(panels) :]:
        axes.remove()
    return sheet.png()


def _recall_panels(section, words):
    """{title: [row]}"""
    panels = {}
    for panel, rows in section.panels().items():
        for row in rows:
            is_line = row.case.selects_pages or not row.case.pages
            if is_line and row.value("tokens_right") is not None:
                title = panel_text(words, section, panel) + f" ({row.case.form})" * (len(section.forms) > 1)
                panels.setdefault(title, []).append(row)
    return panels


def _recall_panel(axes, rows, look, words):
    lines = {}
    for row in rows:
        lines.setdefault(row.case.method, []).append((_share(row.case), row.value("tokens_right")))
    of_policies = [_share(row.case) for row in rows if not row.case.selects_pages and row.case.policy != FULL]
    shares = of_policies + [_share(row.case) for row in rows if row.case.selects_pages] or [1.0]
    set_log_axis(axes.xaxis, *log_limits(shares, 0.04), keep_text)
    axes.xaxis.set_major_locator(ticker.FixedLocator(_apart(shares)))
    axes.set_ylim(-0.03, 1.05)
    axes.yaxis.set_major_formatter(ticker.PercentFormatter(1, symbol=" %"))
    for method, points in lines.items():
        if method[0] == FULL:
            axes.axhline(points[0][1], linewidth=1.6, color=look.colour(method), zorder=2)
        else:
            style = {**look.line(method), **look.marker(method, rows[0].case.form)}
            axes.plot(*zip(*sorted(points)), linewidth=1.4, clip_on=False, zorder=3, **style)
    axes.set_xlabel(words("axis kept"))
    axes.set_ylabel(words("axis right"))
    finish_axes(axes)


def _apart(values, ratio=1.35):
    """Those that are so far apart that their labels don't meet on a log axis; the first come first."""
    chosen = []
    for value in values:
        if all(max(value / other, other / value) >= ratio for other in chosen):
            chosen.append(value)
    return chosen


def _share(case):
    """Of tokens kept, or read where nothing is given up."""
    return min(1.0, case.pages / case.context) if case.selects_pages else case.keep


# --- pages ---


def draw_pages(section, words):
    """KL by the tokens read, a line for each form; a KL of zero, of what reads all, is left to the table."""
    rows = [row for row in section.rows if row.case.selects_pages and (row.value("kl_mean") or 0) > 0]
    if not rows:
        return
    title = words("eval pages")
    sheet = Sheet(9.5, 5.8, title)
    is_from_f32 = section.kind == "retention"
    add_notes(sheet, section, words, [words("pages held" if is_from_f32 else "of pages")])
    axes = sheet.figure.subplots()
    handles = []
    for index, form in enumerate(section.forms):
        own = [row for row in rows if row.case.form == form]
        if own:
            style = series_style(index)
            axes.plot([row.case.pages for row in own], [row.value("kl_mean") for row in own], **style)
            for row in own:
                _error_bar(axes, row, style["color"])
            handles.append(Line2D([], [], label=form, **style))
    _set_pages_axes(axes, rows, words)
    axes.set_ylabel(words("axis kl" if is_from_f32 else "axis pages kl"))
    finish_axes(axes)
    sheet.add_side_legend({words("legend forms"): handles})
    yield Drawing("pages", title, sheet.png())


def _error_bar(axes, row, colour):
    mean, error = row.value("kl_mean"), row.value("kl_se") or 0
    ends = (max(mean - error, mean / 1e3), mean + error)  # a log axis has no end that is below 0
    axes.plot((row.case.pages,) * 2, ends, color=colour, linewidth=0.9, alpha=0.5)


def _set_pages_axes(axes, rows, words):
    means = [row.value("kl_mean") for row in rows]
    pages = [row.case.pages for row in rows]
    set_log_axis(axes.xaxis, *log_limits(pages, 0.1), lambda value: pages_text(words, int(value)))
    axes.xaxis.set_major_locator(ticker.FixedLocator(_apart(pages)))
    set_log_axis(axes.yaxis, *log_limits(means, decades=0.2))
    axes.set_xlabel(words("axis pages"))


# --- streams ---


def _draw_streams(section, title, words):
    lines = {}
    for row in section.rows:
        if row.case.part and (row.value("perplexity") or 0) > 0:
            lines.setdefault(stream_text(row, section), {})[row.case.part] = row.value("perplexity")
    if not lines:
        return None
    sheet = Sheet(13, 6, title + words("colon") + words("by part"))
    add_notes(sheet, section, words, [])
    num_parts = section.settings["parts"]
    axes = sheet.figure.subplots()
    handles = []
    for index, (name, values) in enumerate(lines.items()):
        style = series_style(index)
        parts = range(min(values), max(values) + 1)
        axes.plot(parts, [values.get(part, float("nan")) for part in parts], **style)
        handles.append(Line2D([], [], label=name.replace(",", ", "), **style))
    all_values = [value for values in lines.values() for value in values.values()]
    set_log_axis(axes.yaxis, *log_limits(all_values))
    axes.set_xlim(0.5, num_parts + 0.5)
    axes.xaxis.set_major_locator(ticker.MaxNLocator(12, integer=True))
    axes.set_xlabel(words("axis part").format(num_parts))
    axes.set_ylabel(words("axis perplexity"))
    finish_axes(axes)
    sheet.add_side_legend({words("of case stream"): handles})
    return sheet.png()
