# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The Kvist authors
"""Tests of bench/peers without llama.cpp: programs that play its part say what it would. Run: test_peers.py"""

import contextlib
import io
import json
import pathlib
import sys
import tempfile
import unittest

sys.dont_write_bytecode = True
FOLDER = pathlib.Path(__file__).resolve().parent
sys.path[:0] = [str(FOLDER), str(FOLDER.parents[1] / "tests" / "program")]
import llama_build  # noqa: E402
import llama_quality  # noqa: E402
import llama_speed  # noqa: E402
import peer  # noqa: E402
from json_schema import faults  # noqa: E402
from kv_types import parse_types  # noqa: E402

SCHEMA = json.loads((FOLDER.parents[1] / "docs" / "results.schema.json").read_text(encoding="utf-8"))
MODEL = peer.Model("/models/small.gguf", 8192, 1000)
ORIGIN = {"cpu": "A CPU", "isa": "avx2", "commit": "abc1234"}
ORIGINS = {"kvist": ORIGIN, "llama.cpp": {**ORIGIN, "commit": llama_build.COMMIT}}

# Answers like llama-bench: what it is asked for, at 100 tokens/s and 200; with f16 half as fast.
FAKE_BENCH = """import json, sys
options = dict(zip(sys.argv[1::2], sys.argv[2::2]))
if options["-ctv"] == "q8_0" and options["-fa"] == "0":
    sys.exit("error: quantised V needs flash attention")
speed = 0.5 if options["-ctk"] == "f16" else 1
tests = [("-p", 200.0)] * (options["-p"] != "0") + [("-n", 100.0)] * (options["-n"] != "0")
print(json.dumps([{"n_prompt": int(options["-p"]) * (which == "-p"), "n_gen": int(options["-n"]) * (which == "-n"),
                   "samples_ts": [value * speed - 1, value * speed + 1]} for which, value in tests]))
"""

# Answers like `kvist bench`: 300 tokens/s with the first form, 600 with the second.
FAKE_KVIST = """import json, sys
options = dict(zip(sys.argv[3::2], sys.argv[4::2]))
for number, form in enumerate(options["--form"].split(",")):
    print(json.dumps({"bench": sys.argv[2], "impl": "kvist", "metric": "tokens_per_s", "value": 300.0 * (number + 1),
                      "params": {"form": form, "depth": int(options["--depth"]), "tokens": int(options["--tokens"])},
                      "cpu": "A CPU", "isa": "avx2", "commit": "abc1234"}))
"""

# The lines that are read, as llama-perplexity prints them.
PERPLEXITY = """kl_divergence: computing over 3 chunks, n_ctx=2048, batch_size=2048, n_seq=1
====== Perplexity statistics ======
Mean PPL(Q)                   :  21.334567 ±   0.912345
Mean PPL(base)                :  21.123456 ±   0.901234
====== KL divergence statistics ======
Mean    KLD:   0.058400 ±   0.002100
Maximum KLD:   4.123456
99.9%   KLD:   2.345678
99.0%   KLD:   0.730000
Median  KLD:   0.021000
====== Token probability statistics ======
99.0%   Δp:  9.000%
Same top p: 86.400 ± 0.617 %
"""


def speed_setting(**changes):
    fields = {"model": MODEL, "bench_to_tokens": {"decode": 32, "prefill": 512}, "threads": 2, "rounds": 2}
    return llama_speed.Setting(**{**fields, **changes})


def quality_setting():
    return llama_quality.Setting(MODEL, "/texts/book.txt", 2048, 3, 2)


def program(folder, name, text):
    path = pathlib.Path(folder) / name
    path.write_text(f"#!{sys.executable} -IS\n{text}", encoding="utf-8")
    path.chmod(0o755)
    return path


class Types(unittest.TestCase):
    def test_reads_names_and_pairs(self):
        f16, pair = parse_types("f16,q8_0/q4_0")
        self.assertEqual((f16.name, f16.bits, f16.needs_flash), ("f16", 16, False))
        self.assertEqual((pair.name, pair.bits, pair.needs_flash), ("q8_0/q4_0", 6.5, True))
        self.assertEqual(pair.options, ["-ctk", "q8_0", "-ctv", "q4_0"])

    def test_refuses_others(self):
        for text in ("q3", "", "f16,,q8_0", "/q8_0", "q8_0/q3"):
            with self.assertRaisesRegex(peer.PeerError, "--types takes f32, f16"):
                parse_types(text)


class Build(unittest.TestCase):
    def test_is_native_but_for_amx(self):
        self.assertEqual(llama_build.cpu_options({"avx2", "avx512f"}), ["-DGGML_NATIVE=ON"])
        options = llama_build.cpu_options({"avx512f", "amx_tile", "amx_int8"})
        self.assertIn("-DGGML_NATIVE=OFF", options)
        self.assertIn("-DCMAKE_CXX_FLAGS=-march=native -mno-amx-tile -mno-amx-int8 -mno-amx-bf16", options)

    def test_refuses_another_package(self):
        with tempfile.TemporaryDirectory() as folder:
            package = program(folder, "package.tar.gz", "something else")
            with self.assertRaisesRegex(peer.PeerError, "another SHA-256"):
                llama_build._unpack(package, pathlib.Path(folder) / "unpacked")
            self.assertFalse((pathlib.Path(folder) / "unpacked").exists())


class Speed(unittest.TestCase):
    def test_measures_prefill_as_deep_as_it_fits(self):
        cases = llama_speed.cases_of([8064, 0, 7680], speed_setting())
        self.assertEqual(cases, {0: ["decode", "prefill"], 7680: ["decode", "prefill"], 8064: ["decode"]})

    def test_refuses_depths_that_do_not_fit(self):
        for depth, setting in ((8161, speed_setting()), (8192, speed_setting(bench_to_tokens={"prefill": 512}))):
            with self.assertRaisesRegex(peer.PeerError, f"at a depth of {depth} don't fit the context of small, 8192"):
                llama_speed.cases_of([depth], setting)
        self.assertEqual(
            llama_speed.cases_of([8160], speed_setting(bench_to_tokens={"decode": 32})), {8160: ["decode"]}
        )

    @classmethod
    def setUpClass(cls):
        with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stderr(io.StringIO()) as said:
            kvist = peer.Kvist(str(program(folder, "kvist", FAKE_KVIST)))
            llama_bench = program(folder, "llama-bench", FAKE_BENCH)
            contestants = llama_speed.contestants_of(kvist, "f16,q8", llama_bench, parse_types("f16,q8_0"))
            cls.samples = list(llama_speed.measure(contestants, [0, 8064], speed_setting()))
            cls.said = said.getvalue()

    def test_takes_everyone_in_turns(self):
        names = ["Kvist f16", "Kvist q8", "llama.cpp f16", "llama.cpp f16 FA", "llama.cpp q8_0 FA"]
        decode_at_0 = [sample.name for sample in self.samples if sample.bench == "decode" and sample.depth == 0]
        self.assertEqual(decode_at_0, names + names[:1:-1] + names[:2])
        self.assertIn("llama.cpp computes 47,232 tokens a round", self.said)

    def test_writes_records_of_the_schema(self):
        records = list(llama_speed.records_of(self.samples, ORIGINS))
        self.assertEqual(len(records), 5 * 4)  # decode and prefill at 0, prefill at 7680, decode at 8064
        for record in records:
            self.assertEqual(faults(record, SCHEMA), [])
        (found,) = [
            record["value"]
            for record in records
            if record["bench"] == "prefill"
            and record["params"].get("flash_attention")
            and record["params"]["form"] == "q8_0"
            and record["params"]["depth"] == 7680
        ]
        self.assertEqual(found, 200)

    def test_compares_with_the_fastest(self):
        report = llama_speed.report_of(self.samples, speed_setting(bench_to_tokens={"decode": 32}))
        self.assertIn("| depth | llama.cpp f16 | llama.cpp f16 FA | llama.cpp q8_0 FA | Kvist f16 | Kvist q8 |", report)
        self.assertIn("| 8,064 | 50.0 | 50.0 | 100.0 | 300.0 (3.00x) | 600.0 (6.00x) |", report)
        self.assertNotIn("Prefill", report)

    def test_the_median_and_the_range_count(self):
        values = (100.0, 90.0, 130.0)
        samples = [
            llama_speed.Sample("decode", 0, "llama.cpp f16", "llama.cpp", {"depth": 0}, value) for value in values
        ]
        (record,) = llama_speed.records_of(samples, ORIGINS)
        self.assertEqual((record["value"], record["params"]["rounds"]), (100.0, 3))
        self.assertIn(
            "moved by 40% of itself", llama_speed.report_of(samples, speed_setting(bench_to_tokens={"decode": 32}))
        )

    def test_shows_what_a_stopped_run_measured(self):
        report = llama_speed.report_of(self.samples[:12], speed_setting())  # all at 0, then Kvist at 7,680
        self.assertIn("| 0 | 100.0 | 100.0 | 200.0 | 300.0 (1.50x) | 600.0 (3.00x) |", report)
        self.assertIn("| 7,680 | - | - | - | 300.0 | 600.0 |", report)
        self.assertIn("this is the median: 1.", report)
        self.assertIn("this is the median: 1 to 2.", llama_speed.report_of(self.samples[:-1], speed_setting()))

    def test_tells_what_failed(self):
        with tempfile.TemporaryDirectory() as folder:
            (kv,) = parse_types("q8_0")
            llama = llama_speed.Llama(program(folder, "llama-bench", FAKE_BENCH), kv, flash=False)
            with self.assertRaisesRegex(
                peer.PeerError, "q8_0 at depth 64 failed .exit code 1.: error: quantised V needs"
            ):
                list(llama.measure(64, ["decode"], speed_setting()))


class Quality(unittest.TestCase):
    def rows(self):
        (q4_0,) = parse_types("q4_0")
        theirs = {**llama_quality._metrics(PERPLEXITY, q4_0), **llama_quality._bits(q4_0)}
        params = llama_quality._params(quality_setting(), q4_0)
        ours = {"kl_mean": 1.1e-3, "kl_p99": None, "same_top": 0.978, "bits": 4.5, "total_bits": 5.1}
        return [
            llama_quality.Row("llama.cpp", "q4_0", params, theirs),
            llama_quality.Row("kvist", "q4", {"form_k": "q4"}, {**ours, "base_perplexity": 21.1235}),
        ]

    def test_reads_what_llama_perplexity_prints(self):
        metrics = self.rows()[0].metrics
        self.assertEqual(metrics.pop("same_top"), 86.4 / 100)
        wanted = {"kl_mean": 0.0584, "kl_p99": 0.73, "base_perplexity": 21.123456, "bits": 4.5, "total_bits": 4.5}
        self.assertEqual(metrics, wanted)

    def test_misses_what_is_not_printed(self):
        with self.assertRaisesRegex(peer.PeerError, "q4_0 printed no kl_p99"):
            llama_quality._metrics(PERPLEXITY.replace("99.0%   KLD", ""), *parse_types("q4_0"))

    def test_refuses_a_text_with_fewer_windows(self):
        llama_quality._check_windows(PERPLEXITY, quality_setting())
        for printed in (PERPLEXITY.replace("3 chunks", "2 chunks"), "you need at least 4096 tokens"):
            with self.assertRaisesRegex(peer.PeerError, "book.txt holds .* windows of 2048 tokens and 3 are asked for"):
                llama_quality._check_windows(printed, quality_setting())

    def test_writes_records_of_the_schema(self):
        records = list(llama_quality.records_of(self.rows(), ORIGINS))
        self.assertEqual(len(records), 12)
        for record in records:
            self.assertEqual(faults(record, SCHEMA), [])

    def test_shows_both(self):
        report = llama_quality.report_of(self.rows(), quality_setting())
        self.assertIn("llama.cpp 21.1235, kvist 21.1235", report)
        self.assertIn("| llama.cpp | q4_0 | 4.50 | 4.50 | 5.84e-02 | 7.30e-01 | 86.40% |", report)
        self.assertIn("| kvist | q4 | 4.50 | 5.10 | 1.10e-03 | not a number | 97.80% |", report)


if __name__ == "__main__":
    unittest.main()
