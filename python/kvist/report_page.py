# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The Kvist authors
"""Writes the page of a report: one HTML file with everything in it, figures and numbers."""

import base64
from html import escape

from report_metrics import METRICS, contestant_text, number_text, scenario_text, shown_value
from report_quality_tables import facts_of, tables_of

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
tbody tr.strong th { font-weight: 600; }
tbody th small { display: block; font-weight: normal; color: #666; }
"""


def make_page(sections, drawings, words):
    """drawings: for each section the list of its drawings."""
    language = "zh-CN" if words.language == "zh" else "en"
    title = escape(_title(sections, words))
    body = [f"<h1>{title}</h1>"]
    for section, figures in zip(sections, drawings):
        make = _growth_section if section.kind == "growth" else _quality_section
        body += make(section, figures, words)
    return (
        f'<!DOCTYPE html>\n<html lang="{language}">\n<head>\n<meta charset="utf-8">\n'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{title}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n" + "\n".join(body) + "\n</body>\n</html>\n"
    )


def _title(sections, words):
    benches = {"growth" if section.kind == "growth" else "eval" for section in sections}
    return words(f"title {benches.pop() if len(benches) == 1 else 'both'}")


def _growth_section(section, figures, words):
    title = words("geometry") + words("colon") + words.name("geometry", section.geometry)
    yield from _beginning(title, section, [], figures, words)
    for table in section.tables.values():
        yield f"<h3>{escape(words.name('table', table.name))}</h3>"
        for scenario in table.scenarios:
            yield f"<h4>{escape(scenario_text(words, scenario))}</h4>"
            yield from _scenario_table(table, scenario, words)


def _quality_section(section, figures, words):
    title = words.name("eval", section.kind) + (words("colon") + section.label if section.label else "")
    yield from _beginning(title, section, facts_of(section, words), figures, words)
    for table in tables_of(section, words):
        if table.title:
            yield f"<h4>{escape(table.title)}</h4>"
        rows = [_row(_heading(each.heading, each.small), each.cells, each.is_strong) for each in table.rows]
        yield from _table(table.head, rows, table.notes)


def _beginning(title, section, facts, figures, words):
    """Heading, origin and figures."""
    yield f"<h2>{escape(title)}</h2>"
    yield '<table class="origin"><tbody>'
    for name, text in [(words(key), getattr(section.origin, key)) for key in ("cpu", "isa", "commit")] + facts:
        yield f"<tr><th>{escape(name)}</th><td>{escape(text)}</td></tr>"
    yield "</tbody></table>"
    for figure in figures:
        data = base64.b64encode(figure.png).decode("ascii")
        caption = escape(figure.caption)
        yield f'<figure><img alt="{caption}" src="data:image/png;base64,{data}">'
        yield f"<figcaption>{caption}</figcaption></figure>"


def _table(head, rows, notes):
    """head: (name, unit) of each column; a column of headings has no unit."""
    (first, _), *columns = head
    yield '<div class="wide"><table>'
    yield f"<thead><tr><th>{escape(first)}</th>"
    for name, unit in columns:
        yield f"<th>{escape(name)}<small>{escape(unit)}</small></th>"
    yield "</tr></thead>\n<tbody>"
    yield from rows
    yield "</tbody></table></div>"
    for note in notes:
        yield f'<p class="note">{escape(note)}</p>'


def _row(heading, cells, is_strong):
    cells = "".join(f"<td>{escape(cell)}</td>" for cell in cells)
    return f"<tr{' class=strong' if is_strong else ''}>{heading}{cells}</tr>"


def _heading(text, small):
    return f"<th>{escape(text)}" + (f"<small>{escape(small)}</small>" if small else "") + "</th>"


def _scenario_table(table, scenario, words):
    rows = [who for who in table.contestants if (who, scenario) in table.runs]
    metrics = _columns(table, rows, scenario)
    head = [(words("contestant"), "")]
    head += [
        (words.name("column", metric), words(f"unit {METRICS[metric].unit}") if metric in METRICS else "")
        for metric in metrics
    ]
    notes = [words("ran full in tables")] * ("refused_at" in metrics)
    notes += [words("dropped tokens")] * any(table.dropped_tokens(who, scenario) for who in rows)
    html_rows = []
    for who in rows:
        cells = [_cell(table.value(who, scenario, metric), metric) for metric in metrics]
        html_rows.append(_row(_contestant_heading(table, who, scenario, words), cells, who.is_ours))
    yield from _table(head, html_rows, notes)


def _columns(table, rows, scenario):
    """The metrics that have a value in some row: the known ones in their order, then any that are new."""
    found = {metric for who in rows for metric, value in table.runs[who, scenario].items() if value is not None}
    return [metric for metric in METRICS if metric in found] + sorted(found - METRICS.keys())


def _contestant_heading(table, who, scenario, words):
    name = contestant_text(words, who).partition("\n")[0]
    mark = f" {table.mark(who, scenario)}".rstrip()
    return _heading(name + mark, table.specs[who, scenario].partition(":")[2])


def _cell(value, metric):
    return "–" if value is None else number_text(shown_value(metric, value))
