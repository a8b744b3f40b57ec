# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The Kvist authors
"""Sorts what `kvist eval --json` printed: one section for each machine, kind of measurement and setting (model, text,
context and so on), in it a row for each case (form, policy, shape, share kept and so on)."""

import collections
import dataclasses
import re

from report_input import MOST, Origin, is_number, place_in
from report_metrics import QUALITY_METRICS

FULL = "full"  # the policy that gives up nothing: what is lost is the form's
PAGES = "pages"  # stands for a policy where nothing is given up and only selected pages are read
KINDS = ("forms", "retention", "recall", "pages", "streams")


@dataclasses.dataclass(frozen=True)
class Case:
    """What tells the rows of a section apart; which of these are set depends on the kind of the section."""

    form: str  # "q4", "q8/q4" when keys and values differ
    policy: str = FULL
    shape: str = ""
    keep: float = 1.0  # share of tokens
    test: str = ""  # of recall: "passkey", "copy"
    context: int = 0  # tokens, of recall
    asked: int = 0  # how often, of recall
    base: float | None = None  # of recall: ln probability without the context; other texts have another
    pages: int = 0  # tokens that a step reads, 0: all
    stream: str = ""
    part: int = 0  # of the text, 0: the whole

    @property
    def method(self):
        return (PAGES, "") if self.selects_pages else (self.policy, self.shape)

    @property
    def selects_pages(self):
        return self.pages > 0 and self.policy == FULL

    @property
    def panel(self):
        """Of recall: what has to be the same for rows that are compared."""
        return (self.test, self.context, self.asked, self.base)


@dataclasses.dataclass(frozen=True)
class Row:
    case: Case
    metrics: dict  # metric: number or None; None also stands for a metric that isn't there

    def value(self, metric):
        return self.metrics.get(metric)


@dataclasses.dataclass
class QualitySection:
    origin: Origin
    kind: str  # one of KINDS
    settings: dict  # parameter: value, the same for all rows
    facts: dict  # metric: value, likewise
    rows: list

    @property
    def label(self):
        """What tells its files from those of other sections of the kind."""
        return "-".join(str(self.settings[key]) for key in ("model", "context") if key in self.settings)

    @property
    def forms(self):
        """From the most precise to the smallest."""
        return sorted({row.case.form for row in self.rows}, key=_form_place)

    def panels(self):
        """{what has to be the same: [row]}"""
        panels = {}
        for row in self.rows:
            panels.setdefault(row.case.panel, []).append(row)
        return panels


def pareto_front(rows):
    """Those of which no other has fewer bytes and no larger KL, or as many and a smaller one; by bytes."""
    front = []
    for row in sorted(filter(is_point, rows), key=lambda row: (row.value("kv_bytes"), row.value("kl_mean"))):
        if not front or row.value("kl_mean") < front[-1].value("kl_mean"):
            front.append(row)
    return front


def is_point(row):
    """Whether it has a place in the figure of quality against bytes. Pages that are not read are held all the same."""
    return row.case.pages == 0 and (row.value("kv_bytes") or 0) > 0 and row.value("kl_mean") is not None


# --- reading ---

_CASE_PARAMS = ("form_k", "form_v")
_PARAMS_OF_CASE = {
    "forms": (),
    "retention": ("policy", "shape", "keep", "pages"),
    "recall": ("policy", "shape", "keep", "pages", "context", "asked"),
    "pages": ("pages",),
    "streams": ("stream", "part"),
}
_RECALL_METRIC = re.compile(r"(?P<test>\w+?)_(?P<metric>found|tokens_right|ln_probability|no_context_ln_probability)")


@dataclasses.dataclass(frozen=True)
class _Key:
    origin: Origin
    kind: str
    settings: tuple
    case: Case


def sort_quality(lines, note):
    """The sections of a report. Of a measurement that is there twice the last counts; note(text) tells of it."""
    measured = collections.defaultdict(list)  # _Key: [metrics], another where a metric comes again
    num_golden = 0
    for line in lines:
        if "golden" in line.params:
            num_golden += 1
            continue
        key, metric, value = _read(line)
        if not measured[key] or metric in measured[key][-1]:
            measured[key].append({})
        measured[key][-1][metric] = value
    if num_golden:
        note(f"records left out, because `kvist eval --golden` compares with right values: {num_golden}")
    return [_section(*each) for each in _by_base(measured, note).items()]


def _read(line):
    """(_Key, metric, value)"""
    kind = _kind_of(line)
    metric, test = line.text("metric"), ""
    if kind == "recall":
        found = _RECALL_METRIC.fullmatch(metric)
        if found is None:
            raise line.error(f": the metric '{metric}' is none of pass keys or copies, though its params say 'asked'")
        test, metric = found["test"], found["metric"]
    known = QUALITY_METRICS.get(metric)
    value = line.value(may_be_negative=known is None or known.may_be_negative)
    case = dataclasses.replace(_case_of(line, kind), test=test)
    return _Key(line.origin, kind, _settings_of(line, kind), case), metric, value


def _kind_of(line):
    for param, kind in (("stream", "streams"), ("asked", "recall"), ("policy", "retention"), ("pages", "pages")):
        if param in line.params:
            return kind
    return "forms"


def _case_of(line, kind):
    fields = {"form": _form_text(line.param_text("form_k"), line.param_text("form_v"))}
    if kind in ("retention", "recall"):
        fields.update(policy=line.param_text("policy"), shape=line.param_text("shape"))
        fields["keep"] = line.param_share("keep")
        if fields["policy"] == FULL:
            fields.update(shape="", keep=1.0)
    if kind == "recall":
        fields.update(context=line.param_count("context"), asked=line.param_count("asked"))
    if "pages" in line.params and "pages" in _PARAMS_OF_CASE[kind]:
        fields["pages"] = line.param_count("pages", lowest=0)
    if kind == "streams":
        fields["stream"] = line.param_text("stream")
        num_parts = line.param_count("parts")
        if "part" in line.params:
            fields["part"] = line.param_count("part", highest=num_parts)
    return Case(**fields)


def _settings_of(line, kind):
    settings = {} if line.text("impl") == "kvist" else {"impl": line.text("impl")}
    others = _CASE_PARAMS + _PARAMS_OF_CASE[kind]
    for key, value in line.params.items():
        if key in others:
            continue
        if not isinstance(value, (str, bool)) and not is_number(value):
            raise line.error(f": the parameter '{key}' is neither text nor a number")
        settings[key] = value
    return tuple(sorted(settings.items(), key=lambda item: (place_in(_SETTINGS, item[0]), item[0])))


def _form_text(k, v):
    return k if k == v else f"{k}/{v}"


# --- sorting ---

_SETTINGS = ("impl", "model", "text", "weights", "context", "windows", "continuation", "regime")
_POLICIES = (FULL, "window", "random", "article-norm", "knorm", "keydiff", "tova", "h2o", "snapkv", "expected", "kvzip")
_SHAPES = ("", "uniform", "pyramid", "adaptive", "global")
_CODECS = ("f32", "f16", "bf16", "q8", "q6", "q5", "q4", "q3", "q2")
# What is of the run, not of a case. A text is not always named: where the first ones differ, it was another one.
_BASES = ("base_perplexity", "no_prefix_perplexity")
_FACTS = (*_BASES, "tokens", "prefill_s", "observed_prefill_s", "repetition_s")


def _by_base(measured, note):
    """{(origin, kind, settings, bases): {case: metrics}}"""
    sections = {}
    num_repeated = 0
    for key, metrics, bases in _with_bases(measured):
        case = dataclasses.replace(key.case, base=metrics.get("no_context_ln_probability"))
        merged = sections.setdefault((key.origin, key.kind, key.settings, bases), {}).setdefault(case, {})
        num_repeated += len(merged.keys() & metrics.keys())
        merged.update(metrics)
    if num_repeated:
        note(f"measurements that are there more than once, of which the last is shown: {num_repeated}")
    return sections


def _with_bases(measured):
    """(key, metrics, bases) of every measurement. What has no bases is of the run that has some, when there is one."""
    flat = [(key, metrics) for key, measurements in measured.items() for metrics in measurements]
    known = collections.defaultdict(set)
    for key, metrics in flat:
        if any(base in metrics for base in _BASES):
            known[key.origin, key.kind, key.settings].add(_bases_of(metrics))
    for key, metrics in flat:
        bases = _bases_of(metrics)
        runs = known[key.origin, key.kind, key.settings]
        if len(runs) == 1 and not any(base in metrics for base in _BASES):
            (bases,) = runs
        yield key, metrics, bases


def _bases_of(metrics):
    return tuple(metrics.get(base) for base in _BASES)


def _section(key, cases):
    origin, kind, settings, _ = key
    facts = {}
    for metric in _FACTS:
        values = {metrics.get(metric) for metrics in cases.values()}
        if len(values) == 1 and None not in values:
            facts[metric] = values.pop()
    rows = [
        Row(case, {metric: value for metric, value in metrics.items() if metric not in facts})
        for case, metrics in sorted(cases.items(), key=lambda item: _row_place(item[0]))
    ]
    return QualitySection(origin, kind, dict(settings), facts, rows)


def _row_place(case):
    return (
        (case.test != "passkey", case.test, case.context, case.asked, case.base or 0),
        (place_in(_POLICIES, case.policy), case.policy, place_in(_SHAPES, case.shape), case.shape),
        (_form_place(case.form), -case.keep, -(case.pages or MOST), case.stream, case.part),
    )


def _form_place(form):
    codecs = form.split("/")
    return (place_in(_CODECS, codecs[0]), place_in(_CODECS, codecs[-1]), form)
