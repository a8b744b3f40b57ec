# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The Kvist authors
"""Tests of what python/kvist/report*.py makes of the records of `kvist eval --json`. Run: .venv/bin/python
tests/python/test_report_quality.py

Exit codes as in test_report.py."""

import sys
import unittest
import unittest.mock
import warnings

from test_report import PageReader, ReportTest, json_lines, needs_matplotlib  # also makes the report importable
from test_report import record as growth_record

import report
import report_input
import report_metrics
import report_quality
import report_quality_tables
from report_text import LANGUAGES, Words

MIB = 1 << 20
ORIGIN = {"cpu": "A CPU", "isa": "avx2", "commit": "abc1234"}
RUN = {"base_perplexity": 29.02, "no_prefix_perplexity": 40.34, "prefill_s": 7, "observed_prefill_s": 8}
RUN["repetition_s"] = 0


def records_of(params, metrics, impl="kvist", **changes):
    """As apps/*.cc print them."""
    form_k, _, form_v = params["form"].partition("/")
    params = {**params, "form_k": form_k, "form_v": form_v or form_k}
    del params["form"]
    made = {"bench": "eval", "impl": impl, "params": params}
    return [{**made, "metric": metric, "value": value, **ORIGIN, **changes} for metric, value in metrics.items()]


def form_records(form="q4", kl=1e-3, kv_mib=10, changes=(), **params):
    known = {"text": "austen", "model": "smollm2", "weights": "f32", "threads": 2, "context": 2048, "windows": 3}
    known.update(recent_tokens=128, sink_tokens=4, regime="online", **{"form": form, **params})
    metrics = {
        "tokens": 3069,
        "kl_mean": kl,
        "kl_se": abs(kl) / 10,
        "kl_median": kl / 2,
        "kl_p99": kl * 9,
        "kl_max": kl * 10,
    }
    metrics.update(same_top=0.98, perplexity=25.5, base_perplexity=25.045, ln_perplexity_difference=-0.002)
    metrics.update(ln_perplexity_difference_se=0.001, bits=4.41, total_bits=5.35, kv_bytes=kv_mib * MIB)
    return records_of(known, metrics, **dict(changes))


def retention_records(policy="full", keep=1.0, kl=1e-6, kv_mib=100, form="f16", shape="uniform", changes=(), **params):
    known = {"model": "smollm2", "context": 4096, "windows": 2, "threads": 2}
    known.update(form=form, policy=policy, shape=shape, keep=keep, pages=0)
    metrics = {"kl_mean": kl, "kl_se": kl and kl / 4, "same_top": 0.9, "perplexity": 29.5, "recovered": 0.8}
    metrics.update(held_tokens=4096 * keep, kv_bytes=kv_mib * MIB, evict_s=0.1, **RUN)
    return records_of({**known, **params}, metrics, **dict(changes))


def recall_records(policy="full", keep=1.0, right=0.9, context=1024, test="passkey", form="f16", base=-4.5, **params):
    known = {"model": "smollm2", "context": context, "windows": 2, "threads": 2, "asked": 10}
    known.update(form=form, policy=policy, shape="uniform", keep=keep, pages=0)
    metrics = {"found": 0.5, "tokens_right": right, "ln_probability": -1.25, "no_context_ln_probability": base}
    return records_of({**known, **params}, {f"{test}_{metric}": value for metric, value in metrics.items()})


def page_records(pages, kl, form="f16"):
    known = {"model": "smollm2", "context": 4096, "continuation": 256, "windows": 2, "threads": 2}
    metrics = {"kl_mean": kl, "kl_se": kl and kl / 4, "same_top": 0.9, "perplexity": 30}
    return records_of({**known, "form": form, "pages": pages}, metrics)


def stream_records(stream, perplexities, whole=30.5, form="f16"):
    known = {
        "model": "smollm2",
        "tokens": 8192,
        "parts": len(perplexities),
        "threads": 2,
        "stream": stream,
        "form": form,
    }
    records = [
        each
        for i, value in enumerate(perplexities, 1)
        for each in records_of({**known, "part": i}, {"perplexity": value})
    ]
    metrics = {"perplexity": whole, "slides": 7, "recomputed_tokens": 0, "peak_kv_bytes": 23 * MIB, "tokens_per_s": 250}
    return records + records_of(known, metrics)


def ladder():
    """Forms alone and four policies in two forms with three shares."""
    records = []
    for form, kl, kv_mib in (("f16", 1e-6, 100), ("q4", 1e-3, 30)):
        records += retention_records(form=form, kl=kl, kv_mib=kv_mib)
        for i, policy in enumerate(("window", "h2o", "kvzip", "mine")):
            for keep in (0.5, 0.25, 0.1):
                records += retention_records(policy, keep, (5 - i) * 0.01 / keep + kl, kv_mib * keep, form)
    return records


def everything():
    records = ladder() + form_records() + form_records("f16", 1e-6, 47) + form_records("f32", 0, 94)
    records += retention_records("snapkv", 0.5, 0.01, 52, shape="adaptive") + retention_records(pages=1024, kl=0.03)
    for context in (1024, 4096):
        records += recall_records(context=context) + recall_records("kvzip", 0.5, 0.8, context)
        records += recall_records("kvzip", 0.25, 0.4, context) + recall_records(pages=256, context=context)
    records += recall_records(test="copy") + recall_records("kvzip", 0.5, 0.3, test="copy")
    records += page_records(0, 0) + page_records(512, 0.08) + page_records(1024, 0.03)
    records += stream_records("window=1024,overlap=128,sinks=4", [20, 25, 30])
    return records + stream_records("recomputed,window=1024,overlap=128", [19, 24, 29])


class QualityTest(ReportTest):
    def read(self, records):
        notes = []
        lines = report_input.read_results([str(self.file(json_lines(records)))], notes.append)["eval"]
        return report_quality.sort_quality(lines, notes.append), notes

    def assert_refused(self, records, *words):
        with self.assertRaises(report_input.ReportError) as caught:
            self.read(records)
        for word in words:
            self.assertIn(word, str(caught.exception))

    def tables(self, records, language="en"):
        sections, _ = self.read(records)
        return [each for section in sections for each in report_quality_tables.tables_of(section, Words(language))]


class Reading(QualityTest):
    def test_each_kind_is_a_section(self):
        sections, notes = self.read(everything())
        self.assertEqual(notes, [])
        self.assertEqual([each.kind for each in sections], ["retention", "forms", "recall", "pages", "streams"])
        self.assertEqual([len(each.rows) for each in sections], [28, 3, 10, 3, 8])
        self.assertEqual(sections[0].settings, {"model": "smollm2", "context": 4096, "windows": 2, "threads": 2})
        self.assertEqual(sections[0].facts, RUN)
        self.assertEqual(sections[1].facts, {"base_perplexity": 25.045, "tokens": 3069})

    def test_runs_are_not_mixed(self):
        for other in (
            {"context": 8192},
            {"model": "gemma3"},
            {"text": "other"},
            {"threads": 4},
            {"changes": {"commit": "fff"}},
            {"changes": {"isa": "avx512"}},
            {"changes": {"impl": "llama.cpp"}},
        ):
            for make in (form_records, retention_records):
                with self.subTest(other):
                    sections, notes = self.read(make() + make(**other))
                    self.assertEqual(([len(each.rows) for each in sections], notes), ([1, 1], []))

    def test_another_text_shows_by_its_perplexity(self):
        other = retention_records()
        for each in other:
            each["value"] += each["metric"] == "base_perplexity"
        sections, notes = self.read(retention_records() + other + retention_records("h2o", 0.5))
        self.assertEqual([each.facts["base_perplexity"] for each in sections], [29.02, 30.02])
        self.assertEqual(([len(each.rows) for each in sections], notes), ([2, 1], []))

    def test_recall_is_apart_by_test_context_and_text(self):
        records = (
            recall_records(context=4096) + recall_records() + recall_records(base=-5) + recall_records(test="copy")
        )
        (section,), notes = self.read(records + recall_records("h2o", 0.5, context=4096))
        self.assertEqual(notes, [])
        panels = [(panel[:2], panel[3], len(rows)) for panel, rows in section.panels().items()]
        expected = [(("passkey", 1024), -5, 1), (("passkey", 1024), -4.5, 1), (("passkey", 4096), -4.5, 2)]
        self.assertEqual(panels, [*expected, (("copy", 1024), -4.5, 1)])
        titles = [report_quality_tables.panel_text(Words("en"), section, panel) for panel in section.panels()]
        self.assertEqual(titles[0], "pass keys, 1,024 tokens of context, 10 asked, ln p without the context -5")
        self.assertEqual(titles[2], "pass keys, 4,096 tokens of context, 10 asked")

    def test_of_a_repeated_measurement_the_last_counts(self):
        (section,), notes = self.read(retention_records(kl=1) + retention_records(kl=2)[:1])
        self.assertEqual((section.rows[0].value("kl_mean"), section.rows[0].value("recovered")), (2, 0.8))
        self.assertEqual(len(notes), 1)
        self.assertIn("of which the last is shown: 1", notes[0])

    def test_the_full_cache_is_one_whatever_its_shape(self):
        (section,), _ = self.read(retention_records()[:3] + retention_records(shape="global")[3:])
        self.assertEqual(len(section.rows), 1)

    def test_recorded_right_values_are_left_out(self):
        golden = records_of(
            {"golden": "smollm2-f32", "model": "smollm2", "form": "f16"}, {"kl_mean": -2e-8, "prompts": 9}
        )
        sections, notes = self.read(form_records() + golden)
        self.assertEqual(len(sections), 1)
        self.assertIn("--golden", notes[0])
        self.assertIn(": 2", notes[0])
        self.assertEqual(self.read(golden)[0], [])

    def test_what_is_not_as_it_has_to_be_names_line_and_field(self):
        def changed(records, **params):
            records[0]["params"].update(params)
            return records[:1]

        for bad, *words in (
            (changed(retention_records(), keep=0), "'keep'", "share"),
            (changed(retention_records(), keep=1.5), "'keep'"),
            (changed(retention_records(), keep="half"), "'keep'"),
            (changed(retention_records(), policy=5), "'policy'"),
            (changed(retention_records(), form_v=None), "'form_v'"),
            (changed(retention_records(), pages=-1), "'pages'"),
            (changed(retention_records(), model=["a"]), "'model'"),
            (changed(recall_records(), context=0.5), "'context'", "whole number"),
            (changed(recall_records(), asked=10**400), "'asked'"),
            (changed(page_records(512, 1), pages="all"), "'pages'"),
            (changed(stream_records("s", [1, 2]), part=3), "'part'", "from 1 to 2"),
            (changed(stream_records("s", [1, 2]), parts=None), "'parts'"),
            (records_of(recall_records()[0]["params"] | {"form": "f16"}, {"kl_mean": 1}), "'kl_mean'", "'asked'"),
            (records_of({"form": "f16"}, {"kv_bytes": -1}), "'kv_bytes'", "from 0"),
            (records_of({"form": "f16"}, {"perplexity": "5"}), "'perplexity'"),
            (records_of({"form": "f16"}, {"ln_perplexity_difference": True}), "-10^18"),
            (form_records(changes={"cpu": None})[:1], "'cpu'"),
        ):
            with self.subTest(words):
                self.assert_refused([*form_records()[:1], *bad], "line 2", "kvist eval --json", *words)

    def test_the_front_is_what_nothing_beats(self):
        points = {"a": (10, 5), "b": (20, 3), "c": (20, 4), "d": (30, 3), "e": (40, 1), "f": (50, None), "g": (0, 0)}
        records = [
            each
            for policy, (kv_mib, kl) in points.items()
            for each in records_of(
                {"model": "m", "context": 1, "form": "f16", "policy": policy, "shape": "uniform", "keep": 0.5},
                {"kl_mean": kl, "kv_bytes": kv_mib * MIB},
            )
        ]
        pages = retention_records(pages=512, kl=0, kv_mib=1, model="m", context=1)
        (section, _), _ = self.read(records + pages)
        self.assertEqual([row.case.policy for row in report_quality.pareto_front(section.rows)], ["a", "b", "e"])
        (of_pages,), _ = self.read(pages)
        self.assertEqual(report_quality.pareto_front(of_pages.rows), [])  # what is not read is held


class Tables(QualityTest):
    def test_forms(self):
        (table,) = self.tables(form_records() + form_records("f16", 1e-6, 40) + form_records("q8/q4", 2e-3, 20))
        self.assertEqual(table.head[0][0], "Form")
        self.assertEqual([row.heading for row in table.rows], ["f16 ●", "q8/q4", "q4 ●"])
        cells = dict(zip([name for name, _ in table.head[1:]], table.rows[2].cells, strict=True))
        expected = {"Keys and values": "10", "… of f16's": "25", "Mean KL": "0.001", "Same top token": "98"}
        self.assertEqual({name: cells[name] for name in expected}, expected)
        self.assertEqual(cells["ln perplexity less f32's"], "-0.002")
        self.assertNotIn("Perplexity in f32", cells)  # a fact of the run
        self.assertEqual(table.head[1], ("Keys and values", "MiB"))

    def test_retention(self):
        records = retention_records("h2o", 0.25, 0.033, 26, shape="adaptive") + retention_records(kv_mib=104)
        (table,) = self.tables(records + retention_records("random", 0.25, 0.07, 26))
        self.assertEqual([name for name, _ in table.head[:4]], ["Policy", "Form", "Kept", "Held"])
        self.assertEqual([row.heading for row in table.rows], ["full cache ●", "random", "h2o ●"])
        self.assertEqual((table.rows[2].small, table.rows[2].is_strong), ("adaptive", True))
        self.assertEqual(table.rows[2].cells[:6], ["f16", "25 %", "1,024", "26", "25", "0.033"])
        self.assertEqual(table.rows[0].cells[1], "100 %")
        self.assertEqual(len(table.notes), 1)

    def test_pages_beside_retention(self):
        (table,) = self.tables(retention_records() + retention_records(pages=512, kl=0.08))
        self.assertEqual([row.cells[2] for row in table.rows], ["all", "512"])
        self.assertEqual([name for name, _ in table.head[:4]], ["Policy", "Form", "Kept", "Tokens read"])
        self.assertIn("nothing is given up", " ".join(table.notes))

    def test_missing_metrics(self):
        records = retention_records() + retention_records("h2o", 0.5, None, 50) + retention_records("tova", 0.5)
        records = [each for each in records if (each["params"]["policy"], each["metric"]) != ("tova", "kv_bytes")]
        (table,) = self.tables(records)
        columns = [name for name, _ in table.head[1:]]
        cells = [dict(zip(columns, row.cells, strict=True)) for row in table.rows]
        self.assertEqual([each["Keys and values"] for each in cells], ["100", "–", "50"])
        self.assertEqual([each["Mean KL"] for each in cells], ["0.000001", "0.000001", "–"])
        self.assertIn("Rows without bytes or without KL are not in the figure.", table.notes)

    def test_recall(self):
        records = (
            recall_records("kvzip", 0.25, 0.35) + recall_records() + recall_records("kvzip", 0.5, 0.9, test="copy")
        )
        keys, copies = self.tables(records)
        self.assertEqual(keys.title, "pass keys, 1,024 tokens of context, 10 asked")
        self.assertEqual(
            [row.cells[:4] for row in keys.rows], [["f16", "100 %", "50", "90"], ["f16", "25 %", "50", "35"]]
        )
        self.assertEqual(keys.rows[1].cells[4:], ["-1.25", "-4.5"])
        self.assertTrue(copies.title.startswith("passages to copy"))

    def test_pages(self):
        (table,) = self.tables(page_records(0, 0) + page_records(1024, 0.034))
        self.assertEqual([row.cells[:2] for row in table.rows], [["all", "0"], ["1,024", "0.034"]])
        self.assertIn("from reading everything", table.notes[0])

    def test_streams(self):
        sliding, recomputed = "window=1024,overlap=128,sinks=4", "recomputed,window=1024,overlap=128"
        whole, parts = self.tables(
            stream_records(sliding, [20, 25]) + stream_records(recomputed, [19, None], form="q4")
        )
        self.assertEqual([row.heading for row in whole.rows], [sliding, recomputed])
        self.assertEqual(whole.rows[0].cells, ["f16", "30.5", "7", "0", "23", "250"])
        self.assertEqual([name for name, _ in parts.head[1:]], [f"{sliding} (f16)", f"{recomputed} (q4)"])
        self.assertEqual([row.cells for row in parts.rows], [["20", "19"], ["25", "–"]])

    def test_every_metric_and_kind_has_words(self):
        for language in LANGUAGES:
            words = Words(language)
            for metric, how in report_metrics.QUALITY_METRICS.items():
                self.assertTrue(words(f"measure {metric}"))
                self.assertIsInstance(words(f"unit {how.unit}"), str)
            for kind in report_quality.KINDS:
                self.assertTrue(words(f"eval {kind}"))

    def test_new_metrics_stand_as_they_are(self):
        (table,) = self.tables(records_of({"model": "m", "form": "f16"}, {"new_metric": -3}))
        self.assertEqual((table.head[1], table.rows[0].cells), (("new_metric", ""), ["-3"]))


@needs_matplotlib
class Drawing(QualityTest):
    def figures(self, records, language="en"):
        """{name: figure}, laid out."""
        drawing, drawers = report.import_drawing()
        sections, _ = self.read(records)
        figures, made = {}, []
        with unittest.mock.patch.object(drawing.Sheet, "png", lambda sheet: made.append(sheet.figure) or b"png"):
            with drawing.drawing_with_fonts_for(""):
                for section in sections:
                    for each in drawers[section.kind].draw_section(section, Words(language)):
                        figures[each.name] = made[-1]
        return figures

    @staticmethod
    def lines(axes):
        """Of lines with more than one point and a colour of their own: [(xs, ys)]."""
        return [tuple(map(list, line.get_data())) for line in axes.get_lines() if line.get_linestyle() != "None"]

    @staticmethod
    def markers(axes):
        return [line.get_xydata()[0] for line in axes.get_lines() if line.get_linestyle() == "None"]

    def test_each_point_is_where_it_was_measured(self):
        records = retention_records(kl=0.02) + retention_records("h2o", 0.5, 0.04, 50)
        records += retention_records("h2o", 0.25, 0.08, 25) + retention_records("h2o", 0.5, 0.09, 30, form="q4")
        (axes,) = self.figures(records)["retention"].axes
        self.assertEqual((axes.get_xscale(), axes.get_yscale()), ("log", "log"))
        points = [(round(x), round(y, 6)) for x, y in self.markers(axes)]
        self.assertCountEqual(points, [(100, 0.02), (50, 0.04), (25, 0.08), (30, 0.09)])
        self.assertIn(([25, 50], [0.08, 0.04]), self.lines(axes))  # by bytes, without what the method itself beats
        bars = [line for line in self.lines(axes) if line[0] == [50, 50]]
        self.assertEqual(bars, [([50, 50], [0.03, 0.05])])
        (front,) = [line for line in axes.get_lines() if line.get_drawstyle() == "steps-post"]
        self.assertEqual(list(front.get_xdata())[:-1], [25, 25, 50, 100])
        self.assertEqual(list(front.get_ydata())[1:], [0.08, 0.04, 0.02, 0.02])

    def test_a_closer_look_where_policies_are_far_from_forms(self):
        whole, closer = self.figures(ladder())["retention"].axes
        self.assertLess(whole.get_ylim()[0], 1e-6)
        self.assertGreater(closer.get_ylim()[0], 1e-3)
        self.assertEqual(len(self.markers(whole)), 26)
        self.assertEqual(len(self.markers(closer)), 24)  # nothing is moved into view
        self.assertEqual(len(whole.child_axes), 1)  # shares of f16

    def test_a_kl_of_zero_is_at_the_edge_and_marked(self):
        (axes,) = self.figures(form_records("f32", 0, 94) + form_records("q8", 1e-5, 25))["forms"].axes
        self.assertIn((94, axes.get_ylim()[0]), [tuple(point) for point in self.markers(axes)])
        self.assertIn("0", [text.get_text() for text in axes.texts])

    def test_policies_look_different(self):
        policies = [
            "window",
            "random",
            "article-norm",
            "knorm",
            "keydiff",
            "tova",
            "h2o",
            "snapkv",
            "expected",
            "kvzip",
        ]
        records = retention_records()
        for i, policy in enumerate([*policies, "mine", "theirs"]):
            records += retention_records(policy, 0.5, 0.01 * (i + 1), 50)
        figure = self.figures(records)["retention"]
        (legend,) = figure.legends
        texts = [text.get_text() for text in legend.get_texts()]
        self.assertEqual(texts[:3], ["Policy", "full cache: the form alone", "window"])
        self.assertIn("Pareto front", texts)
        all_handles = legend.legend_handles if hasattr(legend, "legend_handles") else legend.legendHandles
        handles = [each for each in all_handles if each.get_marker() not in ("None", "", None)]
        self.assertEqual(len({each.get_color() for each in handles}), 13)
        self.assertEqual(len({each.get_marker() for each in handles}), 13)

    def test_labels_do_not_overlap(self):
        from matplotlib.text import Text

        records = []
        for i in range(30):
            records += form_records(f"q8/x{i}", 1e-5 * 1.02**-i, 30 + i / 10)
        figure = self.figures(records)["forms"]
        (axes,) = figure.axes
        renderer = figure.canvas.get_renderer()
        boxes = [Text.get_window_extent(text, renderer) for text in axes.texts]  # without their arrows
        self.assertGreater(len(boxes), 3)
        for i, box in enumerate(boxes):
            self.assertFalse(any(box.overlaps(other) for other in boxes[:i]))
        legend = figure.legends[0].get_window_extent(renderer)
        self.assertGreater(legend.x0, axes.get_window_extent(renderer).x1)  # outside

    def test_no_figure_without_points(self):
        records = retention_records() + retention_records("h2o", 0.5, None, 50)
        self.assertEqual(self.figures(records), {})
        self.assertEqual(self.figures(recall_records()), {})  # a reference and nothing to compare it with
        self.assertEqual(self.figures(page_records(0, 0)), {})
        self.assertEqual(self.figures(stream_records("s", [None])), {})

    def test_recall(self):
        records = recall_records(right=0.9) + recall_records("kvzip", 0.5, 0.8) + recall_records("kvzip", 0.25, 0.4)
        records += recall_records(pages=512, right=0.85) + recall_records("kvzip", 0.5, 0.1, test="copy")
        keys, copies = self.figures(records)["recall"].axes
        self.assertIn("pass keys", keys.get_title())
        self.assertIn("passages", copies.get_title())
        lines = self.lines(keys)
        self.assertIn(([0, 1], [0.9, 0.9]), lines)  # the full cache: from edge to edge
        self.assertIn(([0.25, 0.5], [0.4, 0.8]), lines)
        self.assertIn(([0.5], [0.85]), lines)  # 512 of 1,024 tokens read

    def test_recall_of_several_forms_is_a_panel_each(self):
        records = recall_records("h2o", 0.5) + recall_records("h2o", 0.5, form="q4")
        self.assertEqual(len(self.figures(records)["recall"].axes), 2)

    def test_pages(self):
        (axes,) = self.figures(page_records(0, 0) + page_records(512, 0.08) + page_records(1024, 0.03))["pages"].axes
        self.assertIn(([1024, 512], [0.03, 0.08]), self.lines(axes))
        self.assertIn("reading all", axes.get_ylabel())
        figures = self.figures(retention_records() + retention_records(pages=512, kl=0.1))
        self.assertEqual(list(figures), ["pages"])
        self.assertIn("from f32", figures["pages"].axes[0].get_ylabel())

    def test_streams(self):
        records = stream_records("window=512,overlap=64,sinks=0", [20, 400, 9000]) + stream_records("s", [20, None, 30])
        (axes,) = self.figures(records)["streams"].axes
        self.assertEqual(axes.get_yscale(), "log")
        lines = self.lines(axes)
        self.assertIn(([1, 2, 3], [20, 400, 9000]), lines)
        self.assertEqual([y == y for y in lines[0][1]], [True, False, True])  # a gap where nothing was measured

    def test_ticks_are_few_and_within(self):
        import report_series

        for low, high in ((20, 31), (1e-6, 1), (3, 110), (0.9, 1.1), (1e-9, 1e12), (0.0101, 0.0102)):
            ticks = report_series.log_ticks(low, high)
            self.assertTrue(1 <= len(ticks) <= 8, ticks)
            self.assertTrue(all(low <= tick <= high for tick in ticks), ticks)


@needs_matplotlib
class Making(QualityTest):
    def test_growth_and_quality_in_one_file(self):
        text, err = self.make([growth_record("resizes", 12), *everything(), growth_record("resizes", 3, commit="fff")])
        self.assertEqual(err, "")
        names = {path.name for path in self.output.glob("*.png")}
        quality = {"retention-smollm2_4096", "forms-smollm2_2048", "recall-smollm2", "pages-smollm2_4096"}
        quality |= {"pages-smollm2_4096-2", "streams-smollm2"}
        self.assertTrue({f"{name}.png" for name in quality} < names, names)
        self.assertIn("worst-append-article-2.png", names)
        page = PageReader(text)
        self.assertEqual(len(page.images), len(names))
        self.assertEqual(page.outside, [])
        for word in ("Kvist: measured results", "A CPU", "avx2", "abc1234", "Recall after eviction: smollm2"):
            self.assertIn(word, page.text)
        self.assertIn(["Model", "smollm2"], page.rows)
        self.assertIn(["Perplexity in f32", "29"], page.rows)
        self.assertIn(["mine ●uniform", "q4", "10 %"], [row[:3] for row in page.rows])

    def test_quality_alone_has_a_title_of_its_own(self):
        text, _ = self.make(form_records() + form_records("f16", 1e-6, 40))
        self.assertIn("<title>Kvist: what compression loses</title>", text)

    def test_names_from_the_results_are_text_and_nothing_else(self):
        name = "<b>&\"' $x^$ _"
        records = retention_records(name, 0.5, 0.1, 10, model=name, shape=name) + retention_records(model=name)
        records += stream_records(name, [1, 2], form=name.replace("/", "")) + recall_records(name, 0.5, test="new_kind")
        page = PageReader(self.make(records)[0])
        self.assertNotIn("b", page._open)
        self.assertIn(name, page.text)

    def test_odd_results_are_drawn(self):
        for records in (
            form_records(kl=0) + form_records("q8", 0, 5),
            form_records(kl=-1e-9) + form_records("q8", 1e-17, 5),
            form_records(kl=1e17, kv_mib=1e9) + form_records("q8", 1e-300, 1e-6),
            retention_records(kl=0.1) + retention_records("h2o", 0.5, 0.1, 100),
            stream_records("s", [5]) + stream_records("t", [5]),
            page_records(7, 1e-9),
            recall_records("h2o", 1.0, 0) + recall_records("h2o", 0.99, 1),
            [each for n in range(12) for each in stream_records(f"window={n},overlap=1,sinks={n}", [n + 1, 2])],
        ):
            with self.subTest(records[0]):
                self.make(records)

    def test_only_right_values_are_nothing_to_report(self):
        golden = records_of({"golden": "smollm2-f32", "model": "smollm2", "form": "f16"}, {"kl_mean": -2e-8})
        self.assert_fails((self.file(json_lines(golden)), "-o", self.output), "nothing to report", "kvist eval")

    def test_wrong_values(self):
        path = self.file(json_lines([growth_record("resizes", 12), *retention_records(keep=7)]))
        self.assert_fails((path, "-o", self.output), path, "line 2", "'keep'", "share")

    def test_chinese(self):
        import report_drawing

        with unittest.mock.patch.object(report_drawing, "use_fonts_for") as used, warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Glyph .* missing")
            code, _, err = self.run_main(self.file(json_lines(everything())), "-o", self.output, "--lang", "zh")
        self.assertEqual((code, err), (0, ""))
        self.assertLessEqual(set("帕累托前沿kvzipsmollm2"), set(used.call_args.args[0]))
        page = PageReader((self.output / "index.html").read_text(encoding="utf-8"))
        for word in ("Kvist：压缩的损失", "完整缓存 ●", "密钥，上下文 1,024 个 token，共问 10 次", "f32 的困惑度"):
            self.assertIn(word, page.text)
        self.assertEqual([row[1] for row in page.rows if row[0] == "模型"], ["smollm2"] * 5)
        heads = [row for row in page.rows if row[0] in ("策略", "格式", "流", "段")]
        self.assertEqual(len(heads), 8)
        for cell in (cell for row in heads for cell in row):
            self.assertRegex(cell, r"[\u4e00-\u9fff]|±|^(window|recomputed)")


if __name__ == "__main__":
    result = unittest.main(exit=False).result
    sys.exit(1 if not result.wasSuccessful() else 77 if result.skipped else 0)
