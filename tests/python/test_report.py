# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The Kvist authors
"""Tests of python/kvist/report*.py. Run: .venv/bin/python tests/python/test_report.py

What draws needs matplotlib. In an environment of the project's own it has to be there; where another Python has none,
those tests are skipped and the exit code is 77, so that ctest says so."""

import contextlib
import errno
import html.parser
import importlib.util
import io
import json
import os
import pathlib
import re
import struct
import sys
import tempfile
import unittest
import unittest.mock
import warnings

sys.dont_write_bytecode = True
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2] / "python" / "kvist"))
import report  # noqa: E402
import report_data  # noqa: E402
import report_input  # noqa: E402
import report_metrics  # noqa: E402
from report_text import LANGUAGES, Words  # noqa: E402

IS_OWN_ENVIRONMENT = sys.prefix != sys.base_prefix
needs_matplotlib = unittest.skipUnless(
    IS_OWN_ENVIRONMENT or importlib.util.find_spec("matplotlib"), "this Python has no matplotlib"
)

CACHES = [(f"article-{name}", "") for name in ("static", "dynamic", "predictive", "hierarchical", "compressed")]
CACHES += [("kvist", growth) for growth in ("exact", "static:max=4000", "dynamic:factor=1.5", "predictive", "learned")]
SCENARIOS = [
    ("comprehensive", "short chat"),
    ("comprehensive", "long document"),
    ("predictive", "burst"),
    ("append", "one by one"),
    ("trace", "load.csv"),
]


def record(metric, value, impl="kvist", growth="exact", table="comprehensive", scenario="short chat", **changes):
    params = {"table": table, "scenario": scenario, "geometry": "article", "growth": growth}
    made = {"bench": "growth", "impl": impl, "params": params, "metric": metric, "value": value}
    return {**made, "cpu": "A CPU", "isa": "avx2", "commit": "abc1234", **changes}


def all_records(**changes):
    """Every metric of every cache in every scenario; the static ones run full with long documents."""
    records = []
    for table, scenario in SCENARIOS:
        for i, (impl, growth) in enumerate(CACHES):
            for metric in report_metrics.METRICS:
                value = (i + 1) ** 3 / 7 if "utilisation" not in metric else (i + 1) / 10
                if metric == "copied_bytes" and impl == "kvist":
                    value = 0
                elif metric == "tokens":
                    value = 700 if impl == "article-compressed" else 1000
                elif metric == "refused_at":
                    value = 4500 if "static" in impl + growth and scenario == "long document" else None
                records.append(record(metric, value, impl, growth, table, scenario, **changes))
    return records


def json_lines(records):
    return "".join(json.dumps(each) + "\n" for each in records).encode()


class PageReader(html.parser.HTMLParser):
    """What is in a page: its images, the rows of its tables, its text; and that every tag is closed."""

    def __init__(self, page):
        super().__init__()
        self.images, self.rows, self.text, self.outside, self._open = [], [], "", [], []
        self.feed(page)
        self.close()
        assert not self._open, self._open

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        if tag == "img":
            self.images.append(attributes)
        if tag not in ("img", "meta"):
            self._open.append(tag)
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")
        self.outside += [value for key, value in attributes.items() if key in ("src", "href") and value[:5] != "data:"]

    def handle_endtag(self, tag):
        assert self._open.pop() == tag, tag

    def handle_data(self, data):
        self.text += data
        if "td" in self._open or "th" in self._open:
            self.rows[-1][-1] += data


class ReportTest(unittest.TestCase):
    def setUp(self):
        temporary = tempfile.TemporaryDirectory()
        self.addCleanup(temporary.cleanup)
        self.folder = pathlib.Path(temporary.name)
        self.output = self.folder / "made" / "on the way"

    def file(self, content, name="results.json"):
        path = self.folder / name
        path.write_bytes(content)
        return path

    def run_main(self, *arguments):
        """(exit code, stdout, stderr)"""
        out, err = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            try:
                code = report.main([str(argument) for argument in arguments])
            except SystemExit as exit_:
                code = exit_.code
        return code, out.getvalue(), err.getvalue()

    def make(self, records, *arguments, path=None):
        """The page of a report that has to succeed, without a warning, and what was said on stderr."""
        path = path or self.file(json_lines(records))
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            code, out, err = self.run_main(path, "-o", self.output, *arguments)
        self.assertEqual(code, 0, err)
        self.assertEqual(out, f"{self.output / 'index.html'}\n")
        return (self.output / "index.html").read_text(encoding="utf-8"), err

    def assert_fails(self, arguments, *words):
        code, out, err = self.run_main(*arguments)
        self.assertEqual((code, out), (1, ""), err)
        self.assertRegex(err, r"^(kvist: note: .*\n)?kvist: error: [^\n]+\.\n$")  # one sentence
        for word in words:
            self.assertIn(str(word), err)
        self.assertFalse((self.output / "index.html").exists())


class Reading(ReportTest):
    def read(self, *contents):
        notes = []
        paths = [str(self.file(content, f"{i}.json")) for i, content in enumerate(contents)]
        lines = report_input.read_results(paths, notes.append)["growth"]
        return report_data.sort_records(map(report_data.growth_record, lines), notes.append), notes

    def assert_refused(self, content, *words):
        with self.assertRaises(report_input.ReportError) as caught:
            self.read(content)
        for word in words:
            self.assertIn(word, str(caught.exception))

    def test_runs_are_sorted_by_machine_table_and_cache(self):
        (section,), notes = self.read(json_lines(reversed(all_records())))
        self.assertEqual(notes, [])
        self.assertEqual(section.origin, report_input.Origin("A CPU", "avx2", "abc1234"))
        self.assertEqual(list(section.tables), ["comprehensive", "predictive", "append", "trace"])
        contestants = section.tables["comprehensive"].contestants
        self.assertEqual([(who.impl, who.kind) for who in contestants], [(i, g.partition(":")[0]) for i, g in CACHES])
        self.assertEqual({who.options for who in contestants}, {""})

    def test_files_add_up_and_other_machines_are_apart(self):
        sections, _ = self.read(
            json_lines([record("resizes", 1)]),
            json_lines([record("stalls", 2)]),
            json_lines([record("resizes", 3, commit="fff"), record("resizes", 4, isa="avx512")]),
        )
        self.assertEqual([section.origin.commit for section in sections], ["abc1234", "fff", "abc1234"])
        self.assertEqual(list(sections[0].tables["comprehensive"].runs.values()), [{"resizes": 1, "stalls": 2}])

    def test_runs_that_hold_fewer_tokens_are_marked(self):
        (section,), _ = self.read(json_lines(all_records()))
        table = section.tables["comprehensive"]
        marks = {each.name: [table.mark(who, each) for who in table.contestants] for each in table.scenarios}
        self.assertEqual(marks["short chat"], ["", "", "", "", "*"] + [""] * 5)
        self.assertEqual(marks["long document"], ["×", "", "", "", "*", "", "×", "", "", ""])

    def test_options_tell_policies_of_one_kind_apart(self):
        growths = ("dynamic:factor=1.2", "dynamic:factor=2", "exact")
        (section,), _ = self.read(json_lines([record("resizes", 1, growth=growth) for growth in growths]))
        names = [report_metrics.contestant_text(Words("en"), w) for w in section.tables["comprehensive"].contestants]
        self.assertEqual(names, ["kvist exact", "kvist dynamic\nfactor=1.2", "kvist dynamic\nfactor=2"])

    def test_options_that_differ_by_scenario_only_are_one_cache(self):
        records = [record("resizes", 1, growth=f"static:max={n}", scenario=f"s{n}") for n in (1, 2)]
        (section,), _ = self.read(json_lines(records))
        self.assertEqual(len(section.tables["comprehensive"].contestants), 1)

    def test_other_parameters_tell_scenarios_apart(self):
        records = [record("resizes", n) for n in (1, 2)]
        for each, slots in zip(records, (8, 16)):
            each["params"].update(table="trace", slots=slots)
        (section,), notes = self.read(json_lines(records))
        names = [report_metrics.scenario_text(Words("en"), each) for each in section.tables["trace"].scenarios]
        self.assertEqual((names, notes), (["short chat (alive at once 8)", "short chat (alive at once 16)"], []))

    def test_what_is_left_out_is_told(self):
        content = b'\n{"bench":"speedup"}\n{"command":"isa"}\n{}\n' + json_lines([record("resizes", 1)] * 2)
        _, notes = self.read(content)
        self.assertIn(": 3 (isa, speedup, unknown)", notes[0])
        self.assertIn("more than once, of which the last is shown: 1", notes[1])

    def test_what_is_not_read_names_the_line(self):
        good = json_lines([record("resizes", 1)])
        for bad, *words in (
            (b"no", "line 2", "not JSON"),
            (b'{"bench":', "line 2", "not JSON"),
            (b"[" * 100000, "line 2", "not JSON"),
            (b'{"bench":"growth","value":NaN}', "line 2", "NaN"),
            (b"[]", "line 2", "not a JSON object"),
            (b"\xff", "line 2", "UTF-8"),
            (json_lines([record("resizes", 1, cpu=5)]), "line 2", "'cpu'"),
            (json_lines([record("resizes", 1, params=[])]), "line 2", "'params'"),
            (json_lines([record("resizes", 1, params={"table": "t"})]), "line 2", "'geometry'"),
        ):
            with self.subTest(bad[:40]):
                self.assert_refused(good + bad, *words)
        for value in (-1, "5", True, [], 10**400, 1e300):
            with self.subTest(str(value)[:10]):
                self.assert_refused(good + json_lines([record("resizes", value)]), "line 2", "'resizes'")

    def test_nothing_of_use(self):
        for content in (b"", b"\n \n", b'{"bench":"speedup"}\n'):
            with self.subTest(content):
                self.assert_refused(content, "kvist bench growth --json")


class Numbers(unittest.TestCase):
    def test_three_digits(self):
        for value, text in (
            (0, "0"),
            (0.00123456, "0.00123"),
            (0.02, "0.02"),
            (0.9999, "1"),
            (1, "1"),
            (2.345, "2.35"),
            (12.34, "12.3"),
            (99.99, "100"),
            (1234.6, "1,235"),
            (8192, "8,192"),
            (1e-9, "1.00e-09"),
            (1e20, "1.00e+20"),
        ):
            self.assertEqual(report_metrics.number_text(value), text)

    def test_bytes_are_shown_as_mib_and_shares_as_percent(self):
        self.assertEqual(report_metrics.shown_value("peak_bytes", 1 << 21), 2)
        self.assertEqual(report_metrics.shown_value("utilisation", 0.5), 50)
        self.assertEqual(report_metrics.shown_value("new_metric", 7), 7)


class Languages(unittest.TestCase):
    def test_every_metric_has_a_heading_and_a_unit_in_each(self):
        for language in LANGUAGES:
            words = Words(language)
            for metric, how in report_metrics.METRICS.items():
                self.assertTrue(words(f"column {metric}"))
                self.assertIsInstance(words(f"unit {how.unit}"), str)

    def test_an_unknown_name_stands_as_it_is(self):
        self.assertEqual(Words("zh").name("scenario", "mine"), "mine")
        self.assertEqual(Words("zh").name("scenario", "short chat"), "短对话")


class Failing(ReportTest):
    def test_usage(self):
        for arguments in ((), ("a.json",), ("-o", "x"), ("a", "-o", "x", "--lang=fr"), ("a", "-o", "x", "-z")):
            with self.subTest(arguments):
                code, out, err = self.run_main(*arguments)
                self.assertEqual((code, out), (2, ""))
                self.assertIn("usage: kvist report", err)
        self.assertEqual(self.run_main("--help")[0], 0)

    def test_without_matplotlib(self):
        with unittest.mock.patch.dict(sys.modules, {"matplotlib": None}):
            for name in ("report_figures", "report_drawing", "report_quality_figures"):
                sys.modules.pop(name, None)
            arguments = (self.file(json_lines(all_records())), "-o", self.output)
            self.assert_fails(arguments, "matplotlib", "make build", sys.executable)

    @needs_matplotlib
    def test_input(self):
        self.assert_fails((self.folder / "none.json", "-o", self.output), self.folder / "none.json", "No such file")
        self.assert_fails((self.folder, "-o", self.output), self.folder, "directory")
        self.assert_fails((self.file(b"{}\nno\n"), "-o", self.output), "results.json, line 2, is not JSON")
        self.assert_fails((self.file(b"{}\n"), "-o", self.output), "nothing to report")

    @needs_matplotlib
    def test_output(self):
        results = self.file(json_lines([record("resizes", 1)]))
        self.assert_fails((results, "-o", results), results, "is not a folder")
        self.assert_fails((results, "-o", results / "below"), "is not a folder")
        for code, word in ((errno.EACCES, "can't be written to"), (errno.ENOSPC, "full"), (errno.EROFS, "can't be")):
            error = OSError(code, os.strerror(code))
            with unittest.mock.patch("tempfile.NamedTemporaryFile", side_effect=error):
                self.assert_fails((results, "-o", self.output), self.output, word)

    @needs_matplotlib
    def test_a_file_is_whole_or_as_it_was(self):
        self.make([record("resizes", 1)])
        before = {path: path.read_bytes() for path in self.output.iterdir()}
        with unittest.mock.patch("os.replace", side_effect=OSError(errno.EIO, "Input/output error")):
            code, _, err = self.run_main(self.file(json_lines(all_records())), "-o", self.output)
        self.assertEqual(code, 1, err)
        self.assertEqual({path: path.read_bytes() for path in self.output.iterdir()}, before)

    @needs_matplotlib
    def test_without_a_font_for_the_language(self):
        arguments = (self.file(json_lines(all_records())), "-o", self.output, "--lang", "zh")
        with unittest.mock.patch("matplotlib.font_manager.findSystemFonts", return_value=[]):
            self.assert_fails(arguments, "fonts-noto-cjk", "fonts-wqy-microhei")


@needs_matplotlib
class Making(ReportTest):
    FIGURES = ("comprehensive", "worst-append", "bytes-copied", "append", "trace")

    def test_everything(self):
        text, err = self.make(all_records())
        self.assertEqual(err, "")
        names = {path.name for path in self.output.iterdir()}
        self.assertEqual(names, {"index.html", *(f"{figure}-article.png" for figure in self.FIGURES)})
        for path in self.output.glob("*.png"):
            content = path.read_bytes()
            self.assertEqual(content[:8], b"\x89PNG\r\n\x1a\n")
            (dots_per_metre,) = struct.unpack(">I", content.partition(b"pHYs")[2][:4])
            self.assertAlmostEqual(dots_per_metre * 0.0254, 150, delta=0.1)
        page = PageReader(text)
        self.assertEqual(len(page.images), len(self.FIGURES))
        self.assertEqual(page.outside, [])  # nothing of the network
        self.assertNotRegex(text, r"https?://|@import|<script")
        for image in page.images:
            self.assertTrue(image["src"].startswith("data:image/png;base64,"))
            self.assertTrue(image["alt"])
        for word in ("A CPU", "avx2", "abc1234"):
            self.assertIn(word, page.text)
        self.assertEqual(len([row for row in page.rows if row[0].startswith("kvist dynamic")]), len(SCENARIOS))

    def test_numbers_stand_in_tables(self):
        records = [record("peak_bytes", 3 << 20), record("resizes", 12), record("new_metric", 4.5)]
        records += [record("refused_at", 4500, "article-static", ""), record("peak_bytes", 0, "article-static", "")]
        page = PageReader(self.make(records)[0])
        self.assertEqual(page.rows[-3], ["Cache", "Full attokens", "PeakMiB", "Resizestimes", "new_metric"])
        self.assertEqual(page.rows[-2], ["article static ×", "4,500", "0", "–", "–"])
        self.assertEqual(page.rows[-1], ["kvist exact", "–", "3", "12", "4.5"])

    def test_names_from_the_results_are_text_and_nothing_else(self):
        name = "<b>&\"' $x^$ _"
        records = [record("peak_bytes", 5, name, name, scenario=name, cpu=name), record("peak_bytes", 9, scenario=name)]
        page = PageReader(self.make(records)[0])
        self.assertNotIn("b", page._open)
        self.assertIn(name, page.text)

    def test_odd_results_are_drawn(self):
        for records in (
            [record("resizes", 0)],
            [record("peak_bytes", None)],
            [record("append_max_ms", 5, table="append"), record("total_ms", 0, table="append")],
            [record("copied_bytes", 1e18), record("copied_bytes", 1e-300, growth="learned")],
            [record("resizes", 1, growth=f"dynamic:factor=1.{n}") for n in range(2, 10)],
            [record("resizes", n, scenario=f"scenario {n}") for n in range(12)],
            [record("resizes", n, f"cache {n}", "") for n in range(12)],
        ):
            with self.subTest(records[0]):
                self.make(records)

    def test_sections_have_their_own_figures(self):
        other = [record("resizes", 2, commit="fff"), record("resizes", 3)]
        other[1]["params"]["geometry"] = "llama3/8b"
        self.make([record("resizes", 1), *other])
        names = {path.name for path in self.output.glob("worst-append*")}
        self.assertEqual(names, {f"worst-append-{each}.png" for each in ("article", "article-2", "llama3_8b")})

    def test_standard_input(self):
        stdin = unittest.mock.Mock(buffer=io.BytesIO(json_lines(all_records())))
        with unittest.mock.patch("sys.stdin", stdin):
            self.make(None, path="-")

    def test_colours_are_the_same_in_every_figure(self):
        import report_figures

        all_of = [report_data.Contestant(impl, growth.partition(":")[0]) for impl, growth in CACHES]
        colours = report_figures.colours_of(all_of)
        self.assertEqual(len(set(colours.values())), len(all_of))
        self.assertEqual(report_figures.colours_of(all_of[6:8]), {who: colours[who] for who in all_of[6:8]})
        several = [report_data.Contestant("kvist", "dynamic", f"factor={n}") for n in (1.2, 1.5, 2)]
        self.assertEqual(len(set(report_figures.colours_of(several).values())), 3)

    def test_scales(self):
        import report_figures

        self.assertFalse(report_figures._scale_of([1, 30]).is_log)
        wide = report_figures._scale_of([0, 1, 31])
        self.assertTrue(wide.is_log and wide.has_zeros and 0 < wide.low < 1)
        self.assertTrue(report_figures._scale_of([5, 6], always_log=True).is_log)
        self.assertFalse(report_figures._scale_of([0, 0], always_log=True).is_log)

    def test_a_font_is_chosen_for_its_characters(self):
        import report_drawing

        # DejaVu Sans has no Chinese; files that are no fonts are passed over.
        from matplotlib import font_manager

        dejavu = font_manager.findfont("DejaVu Sans")
        fonts = [str(self.file(b"no font", "noto-cjk.ttc")), dejavu]
        with unittest.mock.patch("matplotlib.font_manager.findSystemFonts", return_value=fonts):
            self.assertEqual(report_drawing._find_font({"é"}), dejavu)
            with self.assertRaises(report_input.ReportError):
                report_drawing._find_font({"缓"})

    def test_chinese(self):
        """With any font: the words are looked at here, that a font has them is checked by the program itself."""
        import report_drawing

        with unittest.mock.patch.object(report_drawing, "use_fonts_for"), warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Glyph .* missing")
            code, _, err = self.run_main(self.file(json_lines(all_records())), "-o", self.output, "--lang", "zh")
        self.assertEqual((code, err), (0, ""))
        text = (self.output / "index.html").read_text(encoding="utf-8")
        self.assertIn('<html lang="zh-CN">', text)
        page = PageReader(text)
        for word in ("短对话", "kvist 预测", "原文 静态 ×", "峰值利用率"):
            self.assertIn(word, page.text + page.images[0]["alt"])
        english = {"cpu", "isa", "A CPU"}
        headings = {cell for row in page.rows if row[0] == "缓存" for cell in row}
        self.assertEqual({each for each in headings if re.fullmatch(r"[A-Za-z ]+", each)} - english, set())


if __name__ == "__main__":
    result = unittest.main(exit=False).result
    sys.exit(1 if not result.wasSuccessful() else 77 if result.skipped else 0)
