# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The Kvist authors
"""Reads files of results, one JSON object a line, and says of what can't be read what it is and in which line."""

import collections
import dataclasses
import json
import sys

MOST = 1e18  # more than anything that can be measured here; an axis can show it
_WHAT_IS_READ = "a report is made from what `kvist bench growth --json` and `kvist eval --json` print"


class ReportError(Exception):
    """What went wrong, where, and what to do: one sentence for the user."""


@dataclasses.dataclass(frozen=True)
class Origin:
    """What made a result."""

    cpu: str
    isa: str
    commit: str


@dataclasses.dataclass(frozen=True)
class Line:
    """One object, and where it stands. What asks for a field raises ReportError when it isn't as it has to be."""

    found: dict
    path: str
    number: int

    @property
    def place(self):
        return f"{self.path}, line {self.number}"

    def error(self, what):
        """what continues the sentence that begins with the place: ", is not JSON"."""
        return ReportError(f"{self.place}{what}; {_WHAT_IS_READ}.")

    def text(self, key):
        return self._text(self.found, key)

    def param_text(self, key, default=None):
        return self._text(self.params, key, default)

    def param_share(self, key):
        value = self.params.get(key)
        if not is_number(value) or not 0 < value <= 1:
            raise self.error(f": the parameter '{key}' is not a share, above 0 and up to 1")
        return float(value)

    def param_count(self, key, lowest=1, highest=MOST):
        value = self.params.get(key)
        if not is_number(value) or not lowest <= value <= highest or value != int(value):
            upwards = "on" if highest == MOST else f"to {highest}"
            raise self.error(f": the parameter '{key}' is not a whole number from {lowest} {upwards}")
        return int(value)

    @property
    def params(self):
        params = self.found.get("params")
        if not isinstance(params, dict):
            raise self.error(", has no object in its field 'params'")
        return params

    @property
    def origin(self):
        return Origin(self.text("cpu"), self.text("isa"), self.text("commit"))

    def value(self, may_be_negative=False):
        """A number within what can be drawn, or None."""
        value = self.found.get("value")
        lowest, lowest_text = (-MOST, "-10^18") if may_be_negative else (0, "0")
        if value is None or (is_number(value) and lowest <= value <= MOST):
            return value
        what = f"neither a number from {lowest_text} to 10^18 nor null"
        raise self.error(f": the value of '{self.text('metric')}' is {what}")

    def _text(self, holder, key, default=None):
        value = holder.get(key, default)
        if not isinstance(value, str):
            raise self.error(f", has no text in its field '{key}'")
        return value


def is_number(value):
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def read_results(paths, note):
    """{"growth": [Line], "eval": [Line]} of all files ("-" is standard input), in order. note(text) tells what was left
    out."""
    results = {"growth": [], "eval": []}
    others = collections.Counter()
    for path in paths:
        for number, line in enumerate(_read_lines(path), 1):
            if not line.strip():
                continue
            found = _parse_object(line, path, number)
            bench = found.get("bench")
            if isinstance(bench, str) and bench in results:
                results[bench].append(Line(found, path, number))
            else:
                others[str(bench or found.get("command") or "unknown")] += 1
    if others:
        names = ", ".join(sorted(others))
        note(f"records left out, made by neither `kvist bench growth` nor `kvist eval`: {others.total()} ({names})")
    if not any(results.values()):
        raise nothing_to_report(paths)
    return results


def nothing_to_report(paths):
    return ReportError(
        f"There is nothing to report in {', '.join(map(str, paths))}: it holds no record of the growth benchmark and "
        f"none of quality; make some with `kvist bench growth --json > results.json` or `kvist eval -f TEXT --json > "
        f"quality.jsonl`."
    )


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


def place_in(order, name):
    """Where name stands in order; behind all of it what it doesn't know."""
    return order.index(name) if name in order else len(order)
