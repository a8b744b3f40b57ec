# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The Kvist authors
"""Writes the page of a report: one HTML file with everything in it, figures and numbers."""

import base64
from html import escape

from report_metrics import METRICS, contestant_text, number_text, scenario_text, shown_value

_STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; color: #222; background: #fff; margin: 2rem auto; max-width: 76rem;
  padding: 0 1rem; }
h1, h2, h3, h4 { line-height: 1.25; margin: 2em 0 .6em; }
h1 { margin-top: 0; }
figure { margin: 1.5rem 0; }
img { max-width: 100%; height: auto; border: 1px solid #ddd; }
figcaption, .note { color: #555; font-size: .9rem; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-size: .85rem; font-variant-numeric: tabular-nums; }
th, td { padding: .25rem .6rem; text-align: right; white-space: nowrap; border-bottom: 1px solid #e4e4e4; }
thead th { vertical-align: bottom; border-bottom: 2px solid #999; }
thead small { display: block; font-weight: normal; color: #666; }
tbody th, thead th:first-child, .origin td { text-align: left; font-weight: normal; }
tbody th { position: sticky; left: 0; background: #fff; }
tbody tr.ours th { font-weight: 600; }
tbody th small { display: block; font-weight: normal; color: #666; }
"""


def make_page(sections, drawings, words):
    """drawings: for each section the list of its drawings."""
    language = "zh-CN" if words.language == "zh" else "en"
    body = [f"<h1>{escape(words('title'))}</h1>"]
    for section, figures in zip(sections, drawings):
        body += _section(section, figures, words)
    return (
        f'<!DOCTYPE html>\n<html lang="{language}">\n<head>\n<meta charset="utf-8">\n'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(words('title'))}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n"
        + "\n".join(body)
        + "\n</body>\n</html>\n"
    )


def _section(section, figures, words):
    geometry = words("geometry") + words("colon") + words.name("geometry", section.geometry)
    yield f"<h2>{escape(geometry)}</h2>"
    yield '<table class="origin"><tbody>'
    for key in ("cpu", "isa", "commit"):
        yield f"<tr><th>{escape(words(key))}</th><td>{escape(getattr(section.origin, key))}</td></tr>"
    yield "</tbody></table>"
    for figure in figures:
        data = base64.b64encode(figure.png).decode("ascii")
        caption = escape(figure.caption)
        yield f'<figure><img alt="{caption}" src="data:image/png;base64,{data}">'
        yield f"<figcaption>{caption}</figcaption></figure>"
    for table in section.tables.values():
        yield f"<h3>{escape(words.name('table', table.name))}</h3>"
        for scenario in table.scenarios:
            yield f"<h4>{escape(scenario_text(words, scenario))}</h4>"
            yield from _table(table, scenario, words)


def _table(table, scenario, words):
    rows = [who for who in table.contestants if (who, scenario) in table.runs]
    metrics = _columns(table, rows, scenario)
    yield '<div class="wide"><table>'
    yield f"<thead><tr><th>{escape(words('contestant'))}</th>"
    for metric in metrics:
        heading = escape(words.name("column", metric))
        unit = escape(words(f"unit {METRICS[metric].unit}")) if metric in METRICS else ""
        yield f"<th>{heading}<small>{unit}</small></th>"
    yield "</tr></thead>\n<tbody>"
    for who in rows:
        yield f'<tr{" class=ours" if who.is_ours else ""}>{_row_heading(table, who, scenario, words)}'
        yield "".join(f"<td>{_cell(table.value(who, scenario, metric), metric)}</td>" for metric in metrics) + "</tr>"
    yield "</tbody></table></div>"
    if "refused_at" in metrics:
        yield f'<p class="note">{escape(words("ran full in tables"))}</p>'
    if any(table.dropped_tokens(who, scenario) for who in rows):
        yield f'<p class="note">{escape(words("dropped tokens"))}</p>'


def _columns(table, rows, scenario):
    """The metrics that have a value in some row: the known ones in their order, then any that are new."""
    found = {metric for who in rows for metric, value in table.runs[who, scenario].items() if value is not None}
    return [metric for metric in METRICS if metric in found] + sorted(found - METRICS.keys())


def _row_heading(table, who, scenario, words):
    name = contestant_text(words, who).partition("\n")[0]
    mark = f" {table.mark(who, scenario)}".rstrip()
    options = table.specs[who, scenario].partition(":")[2]
    return f"<th>{escape(name + mark)}" + (f"<small>{escape(options)}</small>" if options else "") + "</th>"


def _cell(value, metric):
    return "–" if value is None else number_text(shown_value(metric, value))
