# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The Kvist authors
"""Sorts what `kvist bench growth --json` printed: one section for each machine and geometry, in it the tables, in each
table the caches by scenario."""

import collections
import dataclasses

from report_input import Origin, place_in


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

    kind = "growth"

    @property
    def label(self):
        """What tells its files from those of other sections of the kind."""
        return self.geometry


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


def growth_record(line):
    known = ("table", "scenario", "geometry", "growth")
    details = tuple((key, str(detail)) for key, detail in line.params.items() if key not in known)
    return Record(
        origin=line.origin,
        geometry=line.param_text("geometry"),
        table=line.param_text("table"),
        scenario=Scenario(line.param_text("scenario"), details),
        impl=line.text("impl"),
        growth=line.param_text("growth", ""),
        metric=line.text("metric"),
        value=line.value(),
    )


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
    return sorted(tables.items(), key=lambda item: place_in(_TABLES, item[0]))


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
    table.contestants.sort(key=lambda who: (who.is_ours, place_in(_IMPLS, who.impl), place_in(_KINDS, who.kind)))
    return table
