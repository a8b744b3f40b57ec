# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The Kvist authors
"""The tables of quality, and what its cases are called in tables and figures alike."""

import dataclasses

from report_metrics import QUALITY_METRICS, number_text, shown_value
from report_quality import FULL, is_point, pareto_front

FRONT_MARK = "●"


@dataclasses.dataclass(frozen=True)
class TableRow:
    heading: str
    small: str  # below the heading
    cells: list
    is_strong: bool = False


@dataclasses.dataclass(frozen=True)
class QualityTable:
    title: str
    head: list  # (name, unit) of each column, the first that of the headings
    rows: list
    notes: list  # below it


def tables_of(section, words):
    if section.kind == "recall":
        panels = section.panels().items()
        return [_case_table(section, rows, words, panel_text(words, section, panel)) for panel, rows in panels]
    if section.kind == "streams":
        whole = [row for row in section.rows if not row.case.part]
        return [_case_table(section, whole, words)] * bool(whole) + _part_tables(section, words)
    return [_case_table(section, section.rows, words)]


def facts_of(section, words):
    """(name, text) of what all rows have in common."""
    settings = [(words.name("setting", key), setting_text(value)) for key, value in section.settings.items()]
    return settings + [
        (words.name("measure", metric), f"{_cell(metric, value)} {_unit(words, metric)}".strip())
        for metric, value in section.facts.items()
    ]


# --- names ---


def setting_text(value):
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)


def method_text(words, method):
    """A policy, with its shape where that is not the plain one."""
    policy, shape = method
    return words("full cache") if policy == FULL else policy + f", {shape}" * (shape not in ("", "uniform"))


def keep_text(keep):
    return f"{number_text(100 * keep)} %"


def panel_text(words, section, panel):
    """ "pass keys, 1,024 tokens of context, 10 asked": of several texts also what tells them apart."""
    test, context, asked, base = panel
    parts = [words.name("test", test), words("of context").format(f"{context:,}"), words("asked").format(asked)]
    if sum(each[:3] == panel[:3] for each in section.panels()) > 1:
        parts.append(words("without context").format("–" if base is None else number_text(base)))
    return words("comma").join(parts)


def stream_text(row, section):
    return row.case.stream + f" ({row.case.form})" * (len(section.forms) > 1)


def pages_text(words, pages):
    return f"{pages:,}" if pages else words("all")


# --- tables ---


def _case_table(section, rows, words, title=""):
    leading = _leading_columns(section.kind, rows)
    values = {id(row): _values(section, row) for row in rows}
    metrics = _columns(values.values())
    front = [id(row) for row in pareto_front(rows)] if len(rows) > 1 else []
    head = [(words(f"of case {name}"), "") for name in leading]
    head += [(words.name("measure", metric), _unit(words, metric)) for metric in metrics]
    table_rows = []
    for row in rows:
        first, *others = [_leading_text(words, row.case, name) for name in leading]
        mark = f" {FRONT_MARK}" * (id(row) in front)
        cells = others + [_cell(metric, values[id(row)].get(metric)) for metric in metrics]
        small = row.case.shape if "policy" in leading else ""
        table_rows.append(TableRow(first + mark, small, cells, bool(mark)))
    return QualityTable(title, head, table_rows, _notes(section, rows, words, front))


def _leading_columns(kind, rows):
    if kind in ("retention", "recall"):
        return ("policy", "form", "keep") + ("pages",) * any(row.case.pages for row in rows)
    return {"forms": ("form",), "pages": ("form", "pages"), "streams": ("stream", "form")}[kind]


def _leading_text(words, case, name):
    if name == "policy":
        return method_text(words, (case.policy, ""))
    if name == "pages":
        return pages_text(words, case.pages)
    return keep_text(case.keep) if name == "keep" else getattr(case, name)


def _values(section, row):
    """Its metrics, and the share of f16's bytes where these are known."""
    reference = f16_bytes(section)
    num_bytes = row.value("kv_bytes")
    if reference and num_bytes is not None:
        return {**row.metrics, "share_of_f16": num_bytes / reference}
    return row.metrics


def f16_bytes(section):
    """What the full cache takes in f16, or None."""
    return next((r.value("kv_bytes") for r in section.rows if (r.case.form, r.case.policy) == ("f16", FULL)), None)


def _columns(all_values):
    """The metrics that have a value in some row: the known ones in their order, then any that are new."""
    found = {metric for values in all_values for metric, value in values.items() if value is not None}
    return [metric for metric in QUALITY_METRICS if metric in found] + sorted(found - QUALITY_METRICS.keys())


def _notes(section, rows, words, front):
    notes = [f"{FRONT_MARK} {words('on the front')}"] * bool(front)
    held = [row for row in rows if not row.case.pages]
    if section.kind in ("forms", "retention") and not all(map(is_point, held)):
        notes.append(words("no point"))
    if section.kind == "retention" and len(held) < len(rows):
        notes.append(words("pages held"))
    return notes + [words("of pages")] * (section.kind == "pages")


def _part_tables(section, words):
    """Perplexity of each part, a column for each stream."""
    rows = [row for row in section.rows if row.case.part]
    streams = list(dict.fromkeys(stream_text(row, section) for row in rows))
    values = {(row.case.part, stream_text(row, section)): row.value("perplexity") for row in rows}
    head = [(words("of case part"), ""), *((stream, words("measure perplexity")) for stream in streams)]
    parts = sorted({part for part, _ in values})
    table_rows = [
        TableRow(f"{part:,}", "", [_cell("perplexity", values.get((part, stream))) for stream in streams])
        for part in parts
    ]
    return [QualityTable(words("by part"), head, table_rows, [])] * bool(table_rows)


def _cell(metric, value):
    return "–" if value is None else number_text(shown_value(metric, value))


def _unit(words, metric):
    return words(f"unit {QUALITY_METRICS[metric].unit}") if metric in QUALITY_METRICS else ""
