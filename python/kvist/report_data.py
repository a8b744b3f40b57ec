# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The Kvist authors
"""Reads what `kvist bench growth --json` printed and sorts it: one section for each machine and geometry, in it the
tables, in each table the caches by scenario."""

import collections
import dataclasses
import json
import sys


class ReportError(Exception):
    """What went wrong, where, and what to do: one sentence for the user."""


@dataclasses.dataclass(frozen=True)
class Origin:
    """What made a result."""

    cpu: str
    isa: str
    commit: str


@dataclasses.dataclass(frozen=True)
class Contestant:
    impl: str  # "article-dynamic", "kvist"
    kind: str = ""  # of kvist's growth policy: "predictive"
    options: str = ""  # of the policy, where one scenario has several of the kind

    @property
    def is_ours(self):
        return self.impl == "kvist"


@dataclasses.dataclass
class Table:
    name: str
    scenarios: list
    contestants: list  # the article's, then ours
    runs: dict  # (contestant, scenario): {metric: number or None}; None also stands for a metric that isn't there
    specs: dict  # (contestant, scenario): the growth policy in full

    def value(self, contestant, scenario, metric):
        return self.runs.get((contestant, scenario), {}).get(metric)

    def ran_full(self, contestant, scenario):
        return self.value(contestant, scenario, "refused_at") is not None

    def dropped_tokens(self, contestant, scenario):
        """Whether it took all tokens and holds fewer at the end than others do."""
        held = self.value(contestant, scenario, "tokens")
        most = max((self.value(who, scenario, "tokens") or 0 for who in self.contestants), default=0)
        return held is not None and held < most and not self.ran_full(contestant, scenario)

    def mark(self, contestant, scenario):
        """What tells a run that is not to be compared as it stands: ×, * or nothing."""
        if self.ran_full(contestant, scenario):
            return "×"
        return "*" if self.dropped_tokens(contestant, scenario) else ""


@dataclasses.dataclass
class Section:
    origin: Origin
    geometry: str
    tables: dict  # name: Table


@dataclasses.dataclass(frozen=True)
class Scenario:
    name: str
    details: tuple = ()  # (name, value) of other parameters, for instance ("slots", 8)


@dataclasses.dataclass(frozen=True)
class Record:
    origin: Origin
    geometry: str
    table: str
    scenario: Scenario
    impl: str
    growth: str
    metric: str
    value: object


# --- reading ---


def read_records(paths, note):
    """The growth records of all files ("-" is standard input), in order. note(text) tells what was left out."""
    records = []
    others = collections.Counter()
    for path in paths:
        for number, line in enumerate(_read_lines(path), 1):
            if not line.strip():
                continue
            found = _parse_object(line, path, number)
            if found.get("bench") == "growth":
                records.append(_growth_record(found, path, number))
            else:
                others[str(found.get("bench") or found.get("command") or "unknown")] += 1
    if others:
        names = ", ".join(sorted(others))
        note(f"records left out because `kvist bench growth` did not make them: {others.total()} ({names})")
    if not records:
        raise ReportError(
            f"There is nothing to report in {', '.join(map(str, paths))}: it holds no record of the growth benchmark; "
            f"make some with `kvist bench growth --json > results.json`."
        )
    return records


def _read_lines(path):
    try:
        if path == "-":
            content = sys.stdin.buffer.read()
        else:
            with open(path, "rb") as file:
                content = file.read()
        return content.decode("utf-8").split("\n")
    except UnicodeDecodeError as error:
        number = content[: error.start].count(b"\n") + 1
        raise ReportError(f"{path}, line {number}, is not UTF-8 text; {_WHAT_IS_READ}.") from error
    except OSError as error:
        raise ReportError(f"{path} can't be read ({error.strerror}); check the path.") from error


_MOST = 1e18  # more than anything that can be measured here; an axis can show it
_WHAT_IS_READ = "a report is made from what `kvist bench growth --json` prints"


def _parse_object(line, path, number):
    def refuse(constant):
        raise ValueError(f"{constant} is not a JSON value")

    try:
        found = json.loads(line, parse_constant=refuse)
    except (ValueError, RecursionError) as error:
        reason = error.msg if isinstance(error, json.JSONDecodeError) else str(error)
        raise ReportError(f"{path}, line {number}, is not JSON ({reason}); {_WHAT_IS_READ}.") from error
    if not isinstance(found, dict):
        raise ReportError(f"{path}, line {number}, is not a JSON object; {_WHAT_IS_READ}.")
    return found


def _growth_record(found, path, number):
    def text(holder, key, default=None):
        value = holder.get(key, default)
        if not isinstance(value, str):
            raise ReportError(f"{path}, line {number}, has no text in its field '{key}'; {_WHAT_IS_READ}.")
        return value

    params = found.get("params")
    if not isinstance(params, dict):
        raise ReportError(f"{path}, line {number}, has no object in its field 'params'; {_WHAT_IS_READ}.")
    value = found.get("value")
    if not _is_amount(value):
        raise ReportError(
            f"{path}, line {number}: the value of '{text(found, 'metric')}' is neither a number from 0 to 10^18 nor "
            f"null; {_WHAT_IS_READ}."
        )
    known = ("table", "scenario", "geometry", "growth")
    details = tuple((key, str(detail)) for key, detail in params.items() if key not in known)
    return Record(
        origin=Origin(text(found, "cpu"), text(found, "isa"), text(found, "commit")),
        geometry=text(params, "geometry"),
        table=text(params, "table"),
        scenario=Scenario(text(params, "scenario"), details),
        impl=text(found, "impl"),
        growth=text(params, "growth", ""),
        metric=text(found, "metric"),
        value=value,
    )


def _is_amount(value):
    if value is None:
        return True
    return isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value <= _MOST


# --- sorting ---

_TABLES = ("comprehensive", "dynamic", "predictive", "append", "trace")
_IMPLS = (
    "article-static",
    "article-dynamic",
    "copy-and-grow",
    "article-predictive",
    "article-hierarchical",
    "article-compressed",
)
_KINDS = ("exact", "static", "dynamic", "predictive", "learned")


def sort_records(records, note):
    """The sections of a report. Of a measurement that is there twice the last counts; note(text) tells of it."""
    grouped = {}  # section: table: run: metric
    specs_of_kind = collections.defaultdict(dict)
    num_repeated = 0
    for record in records:
        tables = grouped.setdefault((record.origin, record.geometry), {})
        run = tables.setdefault(record.table, {}).setdefault((record.impl, record.growth, record.scenario), {})
        num_repeated += record.metric in run
        run[record.metric] = record.value
        kind = record.growth.partition(":")[0]
        specs = specs_of_kind[record.origin, record.geometry, record.table, record.impl, kind]
        specs.setdefault(record.scenario, set()).add(record.growth)
    if num_repeated:
        note(f"measurements that are there more than once, of which the last is shown: {num_repeated}")

    # A policy goes by its kind where that says which one it is: the benchmark gives each table its own options.
    def contestant(section, table, impl, growth):
        kind, _, options = growth.partition(":")
        specs = specs_of_kind[(*section, table, impl, kind)]
        return Contestant(impl, kind, options if any(len(each) > 1 for each in specs.values()) else "")

    return [
        Section(*section, {name: _make_table(name, runs, contestant, section) for name, runs in _in_order(tables)})
        for section, tables in grouped.items()
    ]


def _in_order(tables):
    return sorted(tables.items(), key=lambda item: _place(_TABLES, item[0]))


def _make_table(name, runs, contestant, section):
    table = Table(name, [], [], {}, {})
    for (impl, growth, scenario), metrics in runs.items():
        who = contestant(section, name, impl, growth)
        if scenario not in table.scenarios:
            table.scenarios.append(scenario)
        if who not in table.contestants:
            table.contestants.append(who)
        table.runs[who, scenario] = metrics
        table.specs[who, scenario] = growth
    table.contestants.sort(key=lambda who: (who.is_ours, _place(_IMPLS, who.impl), _place(_KINDS, who.kind)))
    return table


def _place(order, name):
    return order.index(name) if name in order else len(order)
