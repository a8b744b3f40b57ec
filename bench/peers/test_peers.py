# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The Kvist authors
"""Tests of bench/peers without llama.cpp: programs that play its part say what it would. Run: test_peers.py"""

import contextlib
import io
import itertools
import json
import pathlib
import sys
import tempfile
import unittest
import unittest.mock

sys.dont_write_bytecode = True
FOLDER = pathlib.Path(__file__).resolve().parent
sys.path[:0] = [str(FOLDER), str(FOLDER.parents[1] / "tests" / "program")]
import kvpress  # noqa: E402
import llama_build  # noqa: E402
import llama_quality  # noqa: E402
import llama_speed  # noqa: E402
import llama_tiers  # noqa: E402
import lmcache  # noqa: E402
import peer  # noqa: E402
from json_schema import faults  # noqa: E402
from kv_types import parse_types  # noqa: E402
from kvpress_presses import PRESSES, presses_of  # noqa: E402

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

# Answers like llama-server, a millisecond a token that it does not have. With q5_0 it forgets what was restored; with
# q5_1 it does not start.
FAKE_SERVER = """import http.server, json, sys, urllib.parse
options = dict(zip(sys.argv[1::2], sys.argv[2::2]))
kind = options["-ctk"]
if kind == "q5_1":
    sys.exit("error: no such type")
slot, saved, memory = [], [], []

class Handler(http.server.BaseHTTPRequestHandler):
    def log_message(self, *_):
        pass
    def do_GET(self):
        self.answer({})
    def do_POST(self):
        global slot, saved
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        url = urllib.parse.urlsplit(self.path)
        if url.path == "/completion":
            prompt = body["prompt"]
            had = len(prompt) - 1 if prompt in [slot, *memory] else 0
            memory.append(slot)
            slot = prompt
            self.answer({"timings": {"cache_n": had, "prompt_n": len(prompt) - had, "prompt_ms": len(prompt) - had}})
        elif url.query == "action=save":
            saved = slot
            self.answer({"n_written": 100 * len(slot), "timings": {"save_ms": 7.0}})
        elif url.query == "action=restore":
            slot = [] if kind == "q5_0" else saved
            self.answer({"timings": {"restore_ms": 3.0}})
        else:
            slot = []
            memory.clear()
            self.answer({})
    def answer(self, what):
        text = json.dumps(what).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

http.server.HTTPServer(("127.0.0.1", int(options["--port"])), Handler).serve_forever()
"""

# Answers like `kvist bench tiers` and `kvist inspect FOLDER`.
FAKE_KVIST_TIERS = """import json, sys
if sys.argv[1] == "inspect":
    print(json.dumps({"kinds": [{"bytes": 3000, "tokens": 20}, {"bytes": 1000, "tokens": 20}]}))
    sys.exit()
options = dict(zip(sys.argv[3::2], sys.argv[4::2]))
for path, metric, value in [("memory", "first_token_ms", 1.5), ("disk", "resume_ms", 2.0), ("disk", "first_token_ms", 4.0),
                            ("disk", "store_gb_per_s", 1.0), ("disk", "load_gb_per_s", 2.0), ("redis", "load_gb_per_s", 1.0),
                            ("session", "save_ms", 9.0), ("prefill", "prefill_ms", 50.0)]:
    print(json.dumps({"bench": "tiers", "impl": "kvist", "metric": metric, "value": value,
                      "params": {"form": options["--form"], "path": path}}))
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


class Tiers(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.folder = tempfile.TemporaryDirectory()
        cls.addClassCleanup(cls.folder.cleanup)
        cls.server = program(cls.folder.name, "llama-server", FAKE_SERVER)
        cls.kvist = peer.Kvist(str(program(cls.folder.name, "kvist", FAKE_KVIST_TIERS)))
        cls.setting = llama_tiers.Setting(MODEL, [64, 640], 2, 2, pathlib.Path(cls.folder.name))
        contestants = llama_tiers.contestants_of(cls.kvist, ["q4"], cls.server, parse_types("f16"))
        with contextlib.redirect_stderr(io.StringIO()):
            cls.samples = list(llama_tiers.measure(contestants, cls.setting))

    def values(self, impl, tokens, path, metric):
        case = next(case for case in llama_tiers.by_case(self.samples) if case[0] == impl and case[2] == tokens)
        return llama_tiers.by_case(self.samples)[case][path, metric]

    def test_takes_both_in_turns(self):
        turns = [key for key, _ in itertools.groupby((sample.impl, sample.tokens) for sample in self.samples)]
        first = [("kvist", 64), ("llama.cpp", 64), ("kvist", 640), ("llama.cpp", 640)]
        self.assertEqual(turns, first + [("llama.cpp", 64), ("kvist", 64), ("llama.cpp", 640), ("kvist", 640)])

    def test_measures_what_the_server_says(self):
        self.assertEqual(self.values("llama.cpp", 640, "prefill", "prefill_ms"), [640] * 4)
        self.assertEqual(self.values("llama.cpp", 640, "slot", "save_ms"), [7] * 6)
        self.assertEqual(self.values("llama.cpp", 640, "slot", "first_token_ms"), [3 + 1] * 6)
        self.assertEqual(self.values("llama.cpp", 640, "slot", "bytes"), [64000] * 2)
        self.assertEqual(len(self.values("llama.cpp", 640, "host memory", "first_token_ms")), 12)

    def test_counts_the_bytes_of_ours(self):
        self.assertEqual(self.values("kvist", 64, "disk", "bytes"), [6400] * 2)

    def test_refuses_a_prompt_that_did_not_come_back(self):
        (kv,) = parse_types("q5_0")
        with self.assertRaisesRegex(peer.PeerError, "with q5_0 had only 0 of 64 tokens"):
            list(llama_tiers.Llama(self.server, kv).measure(64, self.setting))

    def test_tells_why_the_server_does_not_start(self):
        (kv,) = parse_types("q5_1")
        with self.assertRaisesRegex(peer.PeerError, "q5_1 failed .exit code 1.: error: no such type"):
            list(llama_tiers.Llama(self.server, kv).measure(64, self.setting))

    def test_refuses_lengths_that_do_not_fit(self):
        for tokens in (0, 8192):
            with self.assertRaisesRegex(peer.PeerError, f"A prompt of {tokens} tokens"):
                llama_tiers.check_lengths(llama_tiers.Setting(MODEL, [64, tokens], 2, 1, pathlib.Path("/")))

    def test_writes_records_of_the_schema(self):
        records = list(llama_tiers.records_of(self.samples, self.setting, ORIGINS))
        self.assertEqual(len(records), 2 * (6 + 9))
        for record in records:
            self.assertEqual(faults(record, SCHEMA), [])

    def test_shows_both_by_length(self):
        report = llama_tiers.report_of(self.samples, self.setting)
        ours = "| 0.0 | 50.0 (50.0 to 50.0) | 9.0 (9.0 to 9.0) | 2.0 (2.0 to 2.0) | 4.0 (4.0 to 4.0) | 1.5 (1.5 to 1.5) |"
        self.assertIn(f"| 64 | Kvist q4 {ours}", report)
        theirs = "| 0.1 | 640.0 (640.0 to 640.0) | 7.0 (7.0 to 7.0) | 3.0 (3.0 to 3.0) | 4.0 (4.0 to 4.0) | "
        self.assertIn(f"| 640 | llama.cpp f16 {theirs}", report)


# Answers like lmcache_probe.py.
FAKE_PROBE_PYTHON = """import json, sys
setting = json.loads(sys.argv[3])
for path in ("memory", "redis"):
    print(json.dumps({"path": path, "bytes": setting["chunks"], "store_gb_per_s": 5.0, "load_gb_per_s": 6.0}))
"""


class LMCache(unittest.TestCase):
    def test_takes_both_in_turns_and_shows_medians(self):
        class Redis:
            num_flushes = 0

            def flush(self):
                self.num_flushes += 1

        redis = Redis()
        with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stderr(io.StringIO()):
            python = program(folder, "python", FAKE_PROBE_PYTHON)
            kvist = peer.Kvist(str(program(folder, "kvist", FAKE_KVIST_TIERS)))
            setting = {"chunks": 4, "folder": folder, "redis_port": 1, "threads": 2}
            samples = list(lmcache.measure(python, kvist, MODEL, setting, 2, redis))
        self.assertEqual(redis.num_flushes, 4)
        turns = [impl for impl, _ in itertools.groupby(sample.impl for sample in samples)]
        self.assertEqual(turns, ["lmcache", "kvist", "lmcache"])
        records = list(lmcache.records_of(samples, setting, MODEL, ORIGIN))
        for record in records:
            self.assertEqual(faults(record, SCHEMA), [])
        self.assertEqual(len(records), 4 + 3)
        report = lmcache.report_of(samples, setting)
        self.assertIn("| redis | 5.00 (5.00 to 5.00) | 6.00 (6.00 to 6.00) | - | 1.00 (1.00 to 1.00) |", report)

    def test_tells_that_redis_is_missing(self):
        with unittest.mock.patch("shutil.which", return_value=None):
            with self.assertRaisesRegex(peer.PeerError, "There is no redis-server"):
                lmcache.RedisServer("/")


# Answers like kvpress_probe.py: with all of the prefix a loss of 3, without it 4. TOVA does not work with its model.
FAKE_KVPRESS_PYTHON = """import json, sys
setting = json.loads(sys.argv[3])
took = {"prefill_s": 8.0, "prefill_cpu_s": 10.0}
for window in range(setting["windows"]):
    losses = {"base_loss": 3.0, "no_prefix_loss": 4.0}
    print(json.dumps({"window": window, **losses, "kv_bytes": 1000, **took}))
    for press in setting["presses"]:
        if press["name"] == "TOVA":
            print(json.dumps({"press": "TOVA", "error": "AssertionError: no"}))
            continue
        for keep in setting["keep"]:
            quality = {"kl": 0.1 + window / 10, "loss": 3.25, "same_top": 0.75}
            held = {"held_tokens": keep * setting["context"], "kv_bytes": keep * 1000}
            print(json.dumps({"window": window, "press": press["name"], "keep": keep, **quality, **held,
                              "evict_s": 1.0, "evict_cpu_s": 0.5}))
if setting["threads"] == 7:
    sys.exit("error: seven threads")
"""

# Answers like `kvist eval --retain` for all policies and shapes that it is asked for.
FAKE_KVIST_RETAIN = """import json, sys
options = dict(zip(sys.argv[2::2], sys.argv[3::2]))
cases = [("full", "uniform", 1.0)]
for keep in options["--keep"].split(","):
    cases += [(p, s, float(keep)) for p in options["--retain"].split(",") for s in options["--shape"].split(",")]
for policy, shape, keep in cases:
    metrics = {"kl_mean": 0.01, "kl_se": None, "same_top": 0.9, "perplexity": 21.0, "recovered": 0.9, "held_tokens": 64.0,
               "kv_bytes": 500.0, "base_perplexity": 20.0, "no_prefix_perplexity": 54.0, "prefill_s": 8.0, "evict_s": 0.08}
    for metric, value in metrics.items():
        print(json.dumps({"metric": metric, "value": value, "params": {"policy": policy, "shape": shape, "keep": keep}}))
"""


class KVPress(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        folder = tempfile.TemporaryDirectory()
        cls.addClassCleanup(folder.cleanup)
        cls.python = program(folder.name, "python", FAKE_KVPRESS_PYTHON)
        cls.kvist = peer.Kvist(str(program(folder.name, "kvist", FAKE_KVIST_RETAIN)))

    def setting(self, **changes):
        fields = {"context": 512, "continuation": 64, "windows": 2, "threads": 2, "keep": [0.25, 0.5]}
        return kvpress.Setting(MODEL, "/texts/book.txt", **{**fields, **changes})

    def rows(self, **changes):
        setting = self.setting(**changes)
        presses = presses_of("SnapKV,AdaKV-SnapKV,TOVA")
        found = list(kvpress.probe(self.python, setting, presses))
        with contextlib.redirect_stderr(io.StringIO()):
            ours = kvpress.measure_kvist(self.kvist, setting, presses, "f16")
        return found, ours + list(kvpress.rows_of(found, setting))

    def test_hands_the_probe_what_a_press_is_made_of(self):
        (found,) = presses_of("AdaKV-ExpectedAttention")
        setting = found.setting()
        self.assertEqual((setting["kind"], setting["options"], setting["alone"]), ("AdaKVPress", {}, False))
        self.assertEqual((setting["inner"]["kind"], setting["inner"]["inner"]), ("ExpectedAttentionPress", None))
        self.assertEqual(setting["inner"]["options"], {"epsilon": 0.01})

    def test_knows_presses_by_name(self):
        self.assertEqual(presses_of("all"), list(PRESSES))
        self.assertEqual(len({press.name for press in PRESSES}), len(PRESSES))
        for text in ("", "snapkv", "SnapKV,"):
            with self.assertRaisesRegex(peer.PeerError, "--presses takes all or ObservedAttention, "):
                presses_of(text)

    def test_refuses_what_can_not_be_measured(self):
        for text in ("", "half", "0.5,1", "0"):
            with self.assertRaisesRegex(peer.PeerError, "--keep takes shares between 0 and 1"):
                kvpress.shares_of(text)
        arguments = ["-m", "small", "-f", __file__, "--context", "8000"]
        with self.assertRaisesRegex(peer.PeerError, "8256 tokens doesn't fit the context of small, 8192"):
            kvpress.setting_of(kvpress.parse(arguments), MODEL)
        with self.assertRaisesRegex(peer.PeerError, "There is no text /none"):
            kvpress.setting_of(kvpress.parse([*arguments[:3], "/none"]), MODEL)

    def test_takes_the_mean_of_the_windows(self):
        _, rows = self.rows()
        (row,) = [row for row in rows if row.name == "SnapKV" and row.params["keep"] == 0.5]
        self.assertEqual((row.params["policy"], row.params["shape"], row.params["windows"]), ("snapkv", "uniform", 2))
        wanted = {"kl_mean": 0.15, "kl_se": 0.05, "recovered": 0.75, "held_tokens": 256, "kv_bytes": 500}
        for metric, value in wanted.items():
            self.assertAlmostEqual(row.metrics[metric], value)
        _, rows = self.rows(windows=1)
        self.assertIsNone(rows[-1].metrics["kl_se"])  # one observation says nothing of it

    def test_counts_the_windows_that_a_stopped_run_has_done(self):
        found, _ = self.rows()
        last = next(i for i, each in enumerate(found) if each.get("window") == 1 and "kl" in each)
        rows = list(kvpress.rows_of(found[: last + 1], self.setting()))
        windows = {(row.name, row.params["keep"]): row.params["windows"] for row in rows}
        self.assertEqual((windows["SnapKV", 0.25], windows["SnapKV", 0.5], windows["AdaKV-SnapKV", 0.5]), (2, 1, 1))

    def test_takes_of_ours_what_comes_nearest(self):
        _, rows = self.rows()
        ours = [(row.name, row.params["keep"]) for row in rows if row.impl == "kvist"]
        quarter, half = ([(name, keep) for name in ("snapkv", "snapkv, adaptive", "tova")] for keep in (0.25, 0.5))
        self.assertEqual(ours, [("full", 1.0), *quarter, *half])

    def test_writes_records_of_the_schema(self):
        records = list(kvpress.records_of(self.rows()[1], ORIGIN))
        self.assertEqual(len(records), 7 * 11 + 4 * 14)
        for record in records:
            self.assertEqual(faults(record, SCHEMA), [])

    def test_shows_both_and_what_does_not_work(self):
        found, rows = self.rows()
        report = kvpress.report_of(rows, {"TOVA": "AssertionError: no"}, self.setting())
        theirs = "| kvpress | SnapKV | 50% | 256 | 50% | 1.50e-01 ± 5.0e-02 | 75.0% | 25.79 | 75.0% | 5.0% |"
        self.assertIn(theirs, report)
        self.assertIn("| kvist | snapkv | 50% | 64 | - | 1.00e-02 | 90.0% | 21.00 | 90.0% | 1.0% |", report)
        self.assertIn("TOVA of kvpress 0.5.5 does not work here: AssertionError: no", report)
        self.assertIn("kvpress TOVA does not work here: AssertionError: no", map(kvpress.told, found))

    def test_tells_what_failed(self):
        with self.assertRaisesRegex(peer.PeerError, "kvpress failed .exit code 1.: error: seven threads"):
            self.rows(threads=7)


if __name__ == "__main__":
    unittest.main()
