#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The Kvist authors
"""The kvist program as its users meet it: what it prints, where, and how it ends.

Usage: test_program.py PROGRAM [unittest options]. What needs a model runs on smollm2, found where the program finds it,
and is skipped where it is not."""

import json
import os
import pathlib
import re
import select
import signal
import subprocess
import sys
import tempfile
import time
import unittest

import json_schema

ROOT = pathlib.Path(__file__).resolve().parents[2]
SCHEMA = json.loads((ROOT / "docs" / "results.schema.json").read_text())
PROGRAM = "kvist"
PROMPT = "The capital of France is"


def run(*arguments, stdin=b"", **options):
    """The finished program; its output as bytes."""
    return subprocess.run(
        [PROGRAM, *map(str, arguments)], input=stdin, capture_output=True, timeout=250, check=False, **options
    )


def models_folder():
    data = os.environ.get("XDG_DATA_HOME") or os.path.expanduser("~/.local/share")
    return pathlib.Path(os.environ.get("KVIST_MODELS_DIR") or pathlib.Path(data) / "kvist" / "models")


MODEL = models_folder() / "smollm2.gguf"
needs_model = unittest.skipUnless(MODEL.is_file(), "smollm2 is not fetched")


class ProgramTest(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = pathlib.Path(folder.name)

    def file(self, name, content):
        path = self.folder / name
        path.write_bytes(content)
        return path

    def assert_ok(self, result):
        self.assertEqual(result.returncode, 0, result.stderr.decode())
        return result.stdout

    def assert_fails(self, result, code, *words):
        """A sentence on stderr that holds the words, nothing on stdout, and that exit code."""
        text = result.stderr.decode()
        self.assertEqual(result.returncode, code, text)
        self.assertEqual(result.stdout, b"")
        self.assertTrue(text.startswith("kvist: error: "), text)
        for word in words:
            self.assertIn(word, text)

    def objects(self, result):
        """The JSON objects a command printed, each as the schema wants it."""
        lines = [json.loads(line) for line in self.assert_ok(result).splitlines()]
        self.assertTrue(lines)
        for line in lines:
            self.assertEqual(json_schema.faults(line, SCHEMA), [])
        return lines


class WithoutModel(ProgramTest):
    def test_version_names_everything_that_computes(self):
        self.assertRegex(self.assert_ok(run("--version")).decode(), r"^kvist \d+\.\d+\.\d+ \(commit \S+\), ggml \S+\n$")

    def test_every_command_has_help(self):
        bench = ("bench", "bench speedup", "bench attention", "bench decode", "bench prefill")
        for command in ("", "generate", "chat", "inspect", "eval", *bench, "model", "isa"):
            with self.subTest(command):
                self.assertIn(b"-h", self.assert_ok(run(*command.split(), "--help")))

    def test_wrong_use_is_told_with_exit_code_2(self):
        cases = [
            ([], "subcommand"),
            (["dance"], "dance"),
            (["generate", "-m", "x", "-p", "x", "--dance"], "--dance"),
            (["generate", "-p", "x"], "--model"),
            (["generate", "-m", "x"], "-p"),
            (["generate", "-m", "x"], "-p TEXT"),
            (["generate", "-m", "x", "-p", "x", "--retain", "knorm:keep=0.5,tokens=7"], "one of the two"),
            (["chat", "-m", "x", "--session", ""], "--session"),
            (["chat", "-m", "x", "--strategy", ""], "--strategy"),
            (["generate", "-m", "x", "-p", ""], "empty"),
            (["generate", "-m", "x", "-p", "x", "-n", "-1"], "0 or more"),
            (["generate", "-m", "x", "-p", "x", "-n", "many"], "many"),
            (["generate", "-m", "x", "-p", "x", "--form", "f12"], "bf16"),
            (["generate", "-m", "x", "-p", "x", "--form", "f16/f12"], "f12"),
            (["generate", "-m", "x", "-p", "x", "--weights", "f64"], "neither"),
            (["generate", "-m", "x", "-p", "x", "--threads", "0"], "between 1 and"),
            (["generate", "-m", "x", "-p", "x", "--threads", "9999999999"], "between 1 and"),
            (["generate", "-m", "x", "-p", "x", "--kv-memory", "plenty"], "512M"),
            (["generate", "-m", "x", "-p", "x", "--kv-memory", "-5M"], "512M"),
            (["generate", "-m", "x", "-p", "x", "--temperature", "-1"], "0 or more"),
            (["generate", "-m", "x", "-p", "x", "--top-p", "0"], "above 0"),
            (["generate", "-m", "x", "-p", "x", "--min-p", "1"], "below 1"),
            (["generate", "-m", "x", "-p", "x", "--stop", ""], "empty"),
            (["generate", "-m", "x", "-p", "x", "--chat", "--no-template"], "exclude"),
            (["generate", "-m", "x", "-p", "x", "--retain", "best:keep=0.5"], "snapkv"),
            (["generate", "-m", "x", "-p", "x", "--retain", "knorm,snapkv"], "kvist eval --retain"),
            (["chat", "-m", "x", "--retain", "all"], "kvist eval --retain"),
            (["bench"], "subcommand"),
            (["bench", "speedup", "-m", "x", "--tokens", "8,0"], "'0'"),
            (["bench", "attention", "--layers", "0"], "'0'"),
            (["bench", "attention", "--phase", "decode,encode"], "neither"),
            (["bench", "attention", "--torch-type", "f32"], "--torch"),
            (["bench", "attention", "--geometry", "smollm2,gpt1"], "llama3-8b"),
            (["bench", "attention", "--ggml", "q9"], "q4_0"),
            (["bench", "attention", "--torch", "python3", "--torch-type", "q8"], "bf16"),
            (["bench", "decode", "-m", "x", "--depth", "0,-1"], "'-1'"),
            (["bench", "decode", "-m", "x", "--form", "f16,f12"], "f12"),
            (["bench", "decode", "-m", "x", "--sequences", "0"], "between 1 and"),
            (["bench", "decode", "-m", "x", "--threads", "1,0"], "between 1 and"),
            (["bench", "prefill", "-m", "x", "--tokens", "0"], "'0'"),
            (["bench", "prefill", "-m", "x", "--sequences", "2"], "--sequences"),
            (["eval", "-m", "x"], "-f FILE"),
            (["eval", "-m", "x", "-f", "x", "--golden", "x"], "either"),
            (["eval", "-m", "x", "-f", "x", "--form", "q8,q7"], "q7"),
            (["eval", "-m", "x", "-f", "x", "--form-k", "q8"], "--form-v"),
            (["eval", "-m", "x", "-f", "x", "--form-k", "q8/q4", "--form-v", "q4"], "two codecs"),
            (["eval", "-m", "x", "-f", "x", "--form", "q8", "--form-k", "q8", "--form-v", "q4"], "--form"),
            (["eval", "-m", "x", "-f", "x", "--recent", "-1"], "'-1'"),
            (["eval", "-m", "x", "-f", "x", "--windows", "0"], "'0'"),
            (["eval", "-m", "x", "--golden", "x", "--form", "f16,f32"], "one form"),
            (["eval", "-m", "x", "--golden", "x", "--context", "64"], "--file"),
        ]
        for arguments, word in cases:
            with self.subTest(arguments):
                self.assert_fails(run(*arguments), 2, word)

    def test_unknown_model_names_the_command_that_fetches_it(self):
        self.assert_fails(run("generate", "-m", "nonesuch", "-p", "x"), 1, "'nonesuch'", "kvist model list")
        self.assert_fails(run("inspect", "/nowhere/model.gguf"), 1, "no file '/nowhere/model.gguf'")

    def test_a_model_is_found_in_the_users_folders(self):
        others = {**os.environ, "KVIST_MODELS_DIR": "", "XDG_DATA_HOME": ""}
        places = {"KVIST_MODELS_DIR": "", "XDG_DATA_HOME": "kvist/models", "HOME": ".local/share/kvist/models"}
        for variable, place in places.items():
            with self.subTest(variable):
                models = self.folder / variable / place
                models.mkdir(parents=True)
                (models / "mine.gguf").write_bytes(b"not a model")
                result = run("inspect", "mine", env={**others, variable: str(self.folder / variable)})
                self.assert_fails(result, 1, str(models / "mine.gguf"))

    def test_what_is_no_model_is_told(self):
        self.assert_fails(run("inspect", self.folder), 2, "folder")
        for name, content in (("empty.gguf", b""), ("text.gguf", b"hello " * 99), ("short.gguf", b"GGUF\3\0\0\0")):
            with self.subTest(name):
                self.assert_fails(run("generate", "-m", self.file(name, content), "-p", "x"), 1, name)

    def test_help_of_retain_names_everything_there_is(self):
        for command in ("generate", "chat"):
            help_text = self.assert_ok(run(command, "--help")).decode()
            policies = ("window", "random", "article-norm", "knorm", "keydiff", "tova", "h2o", "expected", "kvzip")
            shapes = ("uniform", "pyramid", "adaptive", "global")
            for word in (*policies, *shapes, "snapkv:keep=0.5,", "margin=", "recent=", "sinks=", "kvist eval --retain"):
                self.assertIn(word, help_text)

    def test_tiers_are_looked_at_before_a_model_is_read(self):
        broken, store = self.file("broken.gguf", b"hello " * 99), self.folder / "store"
        for command in (("generate", "-p", "x"), ("chat",)):
            with self.subTest(command):
                command = (*command, "-m", broken, "--tier")
                self.assert_fails(run(*command, "disk:"), 2, "tier 'disk:'", "missing")
                self.assert_fails(run(*command, "disk:x,size=much"), 2, "'much' is no size")
                self.assert_fails(run(*command, f"disk:{store}"), 1, "broken.gguf")
                self.assertFalse(store.exists())  # nothing is made for a model that can't be used
        other = self.folder / "other"
        self.assert_fails(run("generate", "-m", "nonesuch", "-p", "x", "--tier", f"disk:{other}"), 1, "nonesuch")
        self.assertFalse(other.exists())

    def test_isa_shows_the_sets_and_which_is_in_use(self):
        self.assertIn(b"* ", self.assert_ok(run("isa")))
        (shown,) = self.objects(run("isa", "--json"))
        self.assertIn(shown["isa"], shown["supported"])
        environment = {**os.environ, "KVIST_ISA": "scalar"}
        self.assertEqual(self.objects(run("isa", "--json", env=environment))[0]["isa"], "scalar")
        self.assert_fails(run("isa", env={**environment, "KVIST_ISA": "mmx"}), 1, "mmx", "scalar")

    def test_model_command_is_models_py(self):
        self.assertIn("smollm2", [model["name"] for model in self.objects(run("model", "list", "--json"))])
        self.assertEqual(run("model", "path", "nonesuch").returncode, 1)

    def test_bench_attention_records(self):
        options = ["--tokens=64", "--threads=1", "--rounds=1", "--json"]
        records = self.objects(run("bench", "attention", *options))
        metrics = {
            impl: {record["metric"] for record in records if record["impl"] == impl}
            for impl in {record["impl"] for record in records}
        }
        measured = {"time_ms", "gb_per_s", "roofline_share", "bound_by"}
        machine = {"read_gb_per_s", "float_gops_per_s", "int_gops_per_s"}
        self.assertEqual(metrics, {"machine": machine, "kvist": measured, "ggml": measured})

    def test_bench_attention_computes_the_layers_that_are_asked_for(self):
        options = ["--geometry=smollm2,gemma3", "--layers=2", "--tokens=64", "--threads=1", "--rounds=1"]
        table = self.assert_ok(run("bench", "attention", *options)).decode()
        for word in ("roofline, 1 thread:", "\nsmollm2, 2 of 30 layers\n", "\ngemma3, 2 of 18 layers\n", "x as fast"):
            self.assertIn(word, table)

    def test_bench_attention_that_does_not_fit_is_refused_at_once(self):
        forms = ",".join(["f32"] * 100)
        command = ("bench", "attention", "--geometry=llama3-8b", "--tokens=1", "--long", "--form", forms)
        self.assert_fails(run(*command), 1, "llama3-8b with 131072 tokens", "are free")

    def script(self, name, text):
        path = self.file(name, text.encode())
        path.chmod(0o755)
        return path

    def test_bench_attention_with_torch_says_when_there_is_none(self):
        options = ["--tokens=64", "--threads=1", "--rounds=1", "--torch"]
        self.assert_fails(run("bench", "attention", *options, self.folder / "none"), 1, "none", "can't be run")
        without = self.script("without", f'#!/bin/sh\nexec "{sys.executable}" -I -S "$@"\n')
        self.assert_fails(run("bench", "attention", *options, without), 1, "without", "can't import torch")
        mute = self.script("mute", "#!/bin/sh\nread command\n")
        self.assert_fails(run("bench", "attention", *options, mute), 1, "mute", "ended")

    def test_bench_attention_asks_a_worker_for_torchs_times(self):
        worker = self.script(
            "worker",
            f"#!{sys.executable}\n"
            "import json, sys\n"
            "open_command = json.loads(sys.stdin.readline())\n"
            "assert sys.argv[1].endswith('sdpa_worker.py'), sys.argv\n"
            "assert len(open_command['layers']) == 30 and open_command['layers'][0]['kv_heads'] == 3, open_command\n"
            "tokens = open_command['stored_tokens'] + open_command['step_tokens']\n"
            "print('{}', flush=True)\n"
            "for line in sys.stdin:\n"
            "    print(json.dumps({'ms': tokens / 4}), flush=True)\n",
        )
        options = ["--tokens=64,100", "--phase=decode,prefill", "--threads=1", "--rounds=1", "--json"]
        records = self.objects(run("bench", "attention", *options, "--torch", worker))
        times = [r["value"] for r in records if r["impl"] == "torch" and r["metric"] == "time_ms"]
        self.assertEqual(times, [16, 25, 16, 25])

    @unittest.skipUnless(os.environ.get("KVIST_TORCH_PYTHON"), "KVIST_TORCH_PYTHON names no Python that has torch")
    def test_bench_attention_beside_torch(self):
        options = ["--geometry=gemma3", "--tokens=600", "--phase=decode,prefill", "--threads=1", "--rounds=1", "--json"]
        torch = ["--torch", os.environ["KVIST_TORCH_PYTHON"], "--torch-type=f32,bf16,f16"]
        records = self.objects(run("bench", "attention", *options, *torch))
        times = [r["value"] for r in records if r["impl"] == "torch" and r["metric"] == "time_ms"]
        self.assertEqual(len(times), 6)
        self.assertTrue(all(time > 0 for time in times), times)

    def test_bench_growth_plays_a_trace_in_either_format(self):
        csv = self.file("load.csv", b"TIMESTAMP,ContextTokens,GeneratedTokens\n0,300,20\n1,40,700\n2,900,1\n")
        jsonl = self.file("load.jsonl", b'{"input_length": 300, "output_length": 20}\n{"input_length": 40, "output_length": 9}\n')
        for trace, tokens in ((csv, 300 + 20 + 40 + 700 + 900 + 1), (jsonl, 300 + 20 + 40 + 9)):
            records = self.objects(run("bench", "growth", "--trace", trace, "--geometry", "gemma3", "--json"))
            held = {(r["impl"], r["params"]["growth"]): r["value"] for r in records if r["metric"] == "tokens"}
            self.assertEqual(set(held.values()), {tokens}, held)
            copied = [r["value"] for r in records if r["metric"] == "copied_bytes" and r["impl"] == "kvist"]
            self.assertEqual(copied, [0] * 5)

    def test_bench_growth_runs_the_articles_scenarios(self):
        arguments = ("bench", "growth", "--table", "comprehensive", "--rounds", 1, "--growth", "exact", "--json")
        records = self.objects(run(*arguments))
        ours = {(r["params"]["scenario"], r["metric"]): r["value"] for r in records if r["impl"] == "kvist"}
        scenarios = {scenario for scenario, _ in ours}
        self.assertEqual(scenarios, {"short chat", "long document", "streaming", "burst"})
        for scenario in scenarios:
            self.assertEqual(ours[scenario, "copied_bytes"], 0)
            self.assertIsNone(ours[scenario, "refused_at"])
            self.assertGreater(ours[scenario, "least_utilisation"], 0.95)

    def test_bench_growth_refuses_what_it_does_not_know(self):
        self.assert_fails(run("bench", "growth", "--growth", "dynamic:factor=9"), 2, "between 1.2 and 2")
        self.assert_fails(run("bench", "growth", "--trace", self.folder / "none.csv"), 1, "none.csv")
        broken = self.file("broken.csv", b"TIMESTAMP,ContextTokens,GeneratedTokens\n0,300,20\n0,x,1\n")
        self.assert_fails(run("bench", "growth", "--trace", broken), 1, "line 3", "ContextTokens")

    def test_eval_tells_what_is_no_text(self):
        eval_of = ("eval", "-m", "nonesuch", "-f")
        self.assert_fails(run(*eval_of, self.folder / "none.txt"), 1, "none.txt", "No such file")
        self.assert_fails(run(*eval_of, self.file("empty.txt", b"")), 2, "empty.txt", "empty")
        self.assert_fails(run(*eval_of, self.file("data.bin", b"GGUF\3\0\0\0")), 2, "data.bin", "not text")
        self.assert_fails(run(*eval_of, self.file("some.txt", b"Some text.")), 1, "kvist model list")

    def test_report_tells_what_is_missing(self):
        self.assertEqual(run("report").returncode, 2)
        self.assertEqual(run("report", self.folder / "none.jsonl", "-o", self.folder).returncode, 1)


@needs_model
class WithModel(ProgramTest):
    def generate(self, *arguments, prompt=PROMPT, **options):
        if prompt is not None:
            arguments = ("-p", prompt, *arguments)
        return run("generate", "-m", "smollm2", "--threads=1", *arguments, **options)

    def test_damaged_copies_are_told(self):
        with MODEL.open("rb") as file:
            start = file.read(3_000_000)
        cut = self.file("cut.gguf", start)
        self.assert_fails(run("generate", "-m", cut, "-p", "x"), 1, "cut.gguf")

    def test_a_tier_that_cannot_be_is_told(self):
        in_a_file = str(self.file("file", b"")) + "/store"
        self.assert_fails(self.generate("-n", 1, "--tier", f"disk:{in_a_file}"), 1, in_a_file)

    def test_text_goes_to_stdout_and_statistics_to_stderr(self):
        result = self.generate("-n", 6, "--stats")
        self.assertEqual(self.assert_ok(result)[:7], b" Paris.")
        for word in ("prompt", "output", "6 tokens", "live", "committed", "resident", "reserved", "blocks 1", "static"):
            self.assertIn(word, result.stderr.decode())
        self.assertEqual(self.generate("-n", 6).stderr, b"")

    def test_json_is_one_object_with_the_same_text(self):
        (answer,) = self.objects(self.generate("-n", 6, "--json"))
        self.assertEqual(answer["text"] + "\n", self.generate("-n", 6).stdout.decode())
        statistics = answer["statistics"]
        self.assertEqual((len(answer["tokens"]), answer["finish"], statistics["output_tokens"]), (6, "length", 6))
        self.assertEqual(statistics["prompt_tokens"], statistics["computed_tokens"])
        self.assertEqual(statistics["blocks"], 1)
        self.assertLessEqual(statistics["resident_bytes"], statistics["live_bytes"] * 1.02)
        self.assertAlmostEqual(statistics["static_ratio"], statistics["static_bytes"] / statistics["live_bytes"])

    def test_forms_weights_and_threads_give_the_same_words(self):
        expected = self.generate("-n", 4).stdout
        for options in (["--form=f32"], ["--form=bf16/f16"], ["--weights=f32"], ["--threads=2"]):
            with self.subTest(options):
                command = ["generate", "-m", "smollm2", "-p", PROMPT, "-n", 4]
                self.assertEqual(self.assert_ok(run(*command, *options)), expected)

    def test_prompt_from_file_and_stdin(self):
        expected = self.assert_ok(self.generate("-n", 4))
        path = self.file("prompt.txt", PROMPT.encode())
        self.assertEqual(self.assert_ok(self.generate("-n", 4, "-f", path, prompt=None)), expected)
        self.assertEqual(self.assert_ok(self.generate("-n", 4, "-f-", prompt=None, stdin=PROMPT.encode())), expected)

    def test_a_question_about_a_file_reuses_what_the_tier_has_of_it(self):
        sheep = " ".join(f"Sheep {i} stood on the hill." for i in range(16))
        path = self.file("sheep.txt", sheep.encode())
        (first, second) = (
            self.objects(
                self.generate("-n", 2, "--json", "-f", path, "-p", question, "--tier=disk:~/store", prompt=None, env=env)
            )[0]
            for env in [{**os.environ, "HOME": str(self.folder), "KVIST_MODELS_DIR": str(MODEL.parent)}]
            for question in ("How many sheep are there?", "Where did they stand?")
        )
        self.assertGreater(second["statistics"]["reused_tokens"], first["statistics"]["prompt_tokens"] / 2)
        self.assertTrue((self.folder / "store").is_dir())
        (whole,) = self.objects(
            self.generate("-n", 2, "--json", "-p", f"{sheep}\n\nHow many sheep are there?", prompt=None)
        )
        self.assertEqual(whole["tokens"], first["tokens"])

    def test_no_room_in_mid_answer_names_the_options(self):
        result = self.generate("-n", 200, "--kv-memory=2M")
        self.assertEqual(result.returncode, 1)
        for word in ("budget", "--kv-memory", "--form", "--tier"):
            self.assertIn(word, result.stderr.decode())

    def test_prompt_file_that_is_not_utf8_is_taken(self):
        path = self.file("latin1.txt", b"caf\xe9 \xff\xfe and so on")
        (answer,) = self.objects(self.generate("-n", 2, "--json", "-f", path, prompt=None))
        self.assertGreater(answer["statistics"]["prompt_tokens"], 3)

    def test_prompt_files_that_cant_be_read(self):
        self.assert_fails(self.generate("-f", self.folder / "none.txt", prompt=None), 1, "none.txt", "No such file")
        self.assert_fails(self.generate("-f", self.folder, prompt=None), 1, "directory")
        self.assert_fails(self.generate("-f", self.file("empty.txt", b""), prompt=None), 2, "empty.txt", "empty")
        if os.geteuid() != 0:  # who may read everything
            secret = self.file("secret.txt", b"x")
            secret.chmod(0)
            self.assert_fails(self.generate("-f", secret, prompt=None), 1, "denied")

    def test_prompt_longer_than_the_context_says_both_numbers(self):
        path = self.file("long.txt", b" word" * 9000)
        self.assert_fails(self.generate("-f", path, prompt=None), 1, "9000", "8192")

    def test_no_tokens_asked_for_computes_the_prompt_only(self):
        result = self.generate("-n", 0, "--stats")
        self.assertEqual(self.assert_ok(result), b"")
        self.assertIn("5 computed", result.stderr.decode())
        self.assertIn("note", result.stderr.decode())

    def test_kv_memory_too_small_says_how_much_it_takes(self):
        path = self.file("longer.txt", b" word" * 100)  # 4 blocks of 720 KiB
        self.assert_fails(self.generate("-f", path, "--kv-memory=1M", prompt=None), 1, "3 MiB", "1048576")
        self.assert_ok(self.generate("-f", path, "--kv-memory=3M", "-n", 2, prompt=None))
        result = self.generate("-n", 200, "--kv-memory=1M")  # runs out on the way: what came before is shown
        self.assertEqual(result.returncode, 1)
        self.assertEqual(result.stdout[:7], b" Paris.")
        self.assertIn("KV budget", result.stderr.decode())

    def test_kv_memory_too_small_with_a_tier_advises_no_tier(self):
        path, tier = self.file("longer.txt", b" word" * 100), f"--tier=disk:{self.folder / 'store'}"
        self.assertIn(b"disk tier", self.generate("-f", path, "--kv-memory=1M", prompt=None).stderr)
        result = self.generate("-f", path, "--kv-memory=1M", tier, prompt=None)
        self.assert_fails(result, 1, "1048576", "even with the rest of them in the disk tier", "allow more")
        result = run("chat", "-m", "smollm2", "--kv-memory=1M", tier, stdin=b"word " * 100)
        self.assertEqual(result.returncode, 1)
        self.assertNotIn(b"or a --tier", result.stderr)

    def test_statistics_tell_what_was_written_to_tiers(self):
        path = self.file("longer.txt", b" word" * 100)
        store = self.folder / "store"
        command = ("-f", path, "-n", 2, "--tier", f"disk:{store}")
        written = re.search(r"\ndisk tier +0 records read .*; (\d+) written", self.generate(*command, "--stats", prompt=None).stderr.decode())
        (found,) = self.objects(run("inspect", store, "--json"))
        self.assertEqual(int(written[1]), found["records"])
        (again,) = self.objects(self.generate(*command, "--form=q8", "--json", prompt=None))
        self.assertGreater(again["statistics"]["tiers"][0]["written"], 2)
        result = run("chat", "-m", "smollm2", "-n", 2, "--stats", "--tier", f"disk:{store}", stdin=b"word " * 100 + b"\n/stats\n")
        self.assert_ok(result)
        midway, end = re.findall(r"\ndisk tier .*; (\d+) written", result.stderr.decode())
        self.assertEqual(midway, "0")
        self.assertGreater(int(end), 2)
        self.assertIn(b"written to the tiers when it ends", result.stderr)

    def test_stop_text_ends_the_output_before_it(self):
        text = self.assert_ok(self.generate("-n", 6, "--stop", "Par"))
        self.assertEqual(text, b" \n")
        (answer,) = self.objects(self.generate("-n", 6, "--stop", "zzz", "--stop", ".", "--json"))
        self.assertEqual((answer["text"], answer["finish"]), (" Paris", "stop"))

    def test_seed_decides_what_is_drawn(self):
        options = ["-n", 12, "--temperature=1.5", "--seed"]
        texts = [self.assert_ok(self.generate(*options, seed)) for seed in (1, 1, 2)]
        self.assertEqual(texts[0], texts[1])
        self.assertNotEqual(texts[0], texts[2])

    def test_chat_template(self):
        (plain,) = self.objects(self.generate("-n", 1, "--json", prompt="Hello"))
        (templated,) = self.objects(self.generate("-n", 1, "--json", "--chat", "--system=Be brief.", prompt="Hello"))
        self.assertGreater(templated["statistics"]["prompt_tokens"], plain["statistics"]["prompt_tokens"] + 8)

    def test_reader_that_goes_away_is_no_news(self):
        with subprocess.Popen(
            [PROGRAM, "generate", "-m", "smollm2", "-p", PROMPT, "-n", "2000", "--threads=1"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        ) as process:
            process.stdout.read(3)
            process.stdout.close()
            self.assertEqual(process.stderr.read(), b"")
        self.assertNotEqual(process.returncode, 0)

    def test_full_output_is_told(self):
        with open("/dev/full", "wb") as full:
            command = [PROGRAM, "generate", "-m", "smollm2", "-p", PROMPT, "-n", "2000", "--threads=1"]
            result = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, timeout=100, check=False)
        self.assertEqual(result.returncode, 1)
        self.assertIn(b"No space left", result.stderr)

    def test_interrupt_stops_generate_cleanly(self):
        command = [PROGRAM, "generate", "-m", "smollm2", "-p", PROMPT, "-n", "5000", "--threads=1"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
            self.assertEqual(process.stdout.read(6), b" Paris")
            process.send_signal(signal.SIGINT)
            rest, errors = process.communicate(timeout=60)
        self.assertEqual(process.returncode, 130, errors)
        self.assertTrue(rest.endswith(b"\n"))
        self.assertIn(b"output", errors)
        self.assertNotIn(b"error", errors)

    def test_interrupt_stops_a_long_prompt(self):
        path = self.file("long.txt", b" word" * 8000)
        command = [PROGRAM, "generate", "-m", "smollm2", "-f", str(path), "--progress", "--threads=1"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
            self.assertIn(b"of 8000 tokens", process.stderr.readline())
            process.send_signal(signal.SIGINT)
            text, errors = process.communicate(timeout=100)
        self.assertEqual((process.returncode, text), (130, b""))
        self.assertIn(b"8000 tokens: 0 reused", errors)

    def test_inspect(self):
        (model,) = self.objects(run("inspect", "smollm2", "--json"))
        shape = [model[name] for name in ("architecture", "layers", "query_heads", "kv_heads", "key_dim", "context")]
        self.assertEqual(shape, ["llama", 30, 9, 3, 64, 8192])
        forms = {form["form"]: form["bytes_per_token"] for form in model["kv"]}
        quantised = {"q8": 12105, "q6": 9225, "q5": 7785, "q4": 6345, "q3": 4905, "q2": 3465}
        self.assertEqual(forms, {"f32": 46080, "f16": 23040, "bf16": 23040} | quantised)
        self.assertEqual(sum(kind["bytes"] for kind in model["weights"]["types"]), model["weights"]["bytes"])
        text = self.assert_ok(run("inspect", "smollm2")).decode()
        for word in ("llama", "8192 tokens", "q4_1", "22.5 KiB", "180 MiB"):
            self.assertIn(word, text)

    def test_eval_golden(self):
        prompts = [{"name": "france", "text": PROMPT, "ids": [504, 3575, 282, 4649, 314]}]
        (answer,) = self.objects(self.generate("-n", 4, "--json"))
        prompts[0]["greedy"] = answer["tokens"]
        prompts[0]["top"] = [[[token, -0.5]] for token in answer["tokens"]]
        golden = {"model": "smollm2", "reference": "itself", "how": "", "prompts": prompts}
        path = self.file("itself.json", json.dumps(golden).encode())
        command = ["eval", "--golden", path, "-m", "smollm2", "--threads=1"]
        records = {record["metric"]: record["value"] for record in self.objects(run(*command, "--json"))}
        self.assertEqual(set(records), {"prompts", "ids_equal", "kl_mean", "kl_max", "greedy_tokens", "greedy_equal"})
        counts = [records[name] for name in ("prompts", "ids_equal", "greedy_tokens", "greedy_equal")]
        self.assertEqual(counts, [1, 1, 4, 4])
        self.assertIn(b"1 of 1 prompts equal", self.assert_ok(run(*command)))
        self.assert_fails(run("eval", "--golden", self.folder / "none.json", "-m", "smollm2"), 1, "none.json")

    def eval_text(self, *arguments):
        text = self.file("numbers.txt", " ".join(f"{n} squared is {n * n}." for n in range(40)).encode())
        return run("eval", "-m", "smollm2", "-f", text, "--threads=1", "--context=96", "--windows=1", *arguments)

    def test_eval_text(self):
        records = self.objects(self.eval_text("--form=f32,f16,q2", "--recent=16", "--json"))
        params = {(record["params"]["form_k"], record["params"]["form_v"]): record["params"] for record in records}
        self.assertEqual(list(params), [("f32", "f32"), ("f16", "f16"), ("q2", "q2")])
        expected = {
            "text": "numbers", "model": "smollm2", "weights": "f32", "context": 96, "windows": 1, "recent_tokens": 16,
            "sink_tokens": 4, "regime": "online", "threads": 1, "form_k": "q2", "form_v": "q2",
        }  # fmt: skip
        self.assertEqual(params["q2", "q2"], expected)
        f32, f16, q2 = (
            {record["metric"]: record["value"] for record in records if record["params"]["form_k"] == form}
            for form in ("f32", "f16", "q2")
        )
        for form in (f32, f16, q2):
            self.assertEqual(form["tokens"], 47)
            self.assertLessEqual(form["kl_median"], form["kl_p99"])
            self.assertLessEqual(form["kl_p99"], form["kl_max"])
        self.assertEqual((f32["kl_max"], f32["same_top"], f32["bits"]), (0, 1, 32))
        self.assertEqual(f32["perplexity"], f32["base_perplexity"])
        self.assertTrue(0 < f16["kl_mean"] < 1e-4 < q2["kl_mean"], (f16, q2))
        self.assertTrue(2 < q2["bits"] < 3 < q2["total_bits"] < 16, q2)
        self.assertLess(q2["kv_bytes"], f16["kv_bytes"])

    def test_eval_retention(self):
        text = self.file("sheep.txt", b"".join(b"%d sheep stood on the hill, and one went home. " % i for i in range(80)))
        command = ["eval", "-m", "smollm2", "-f", text, "--threads=1", "--weights=file", "--windows=1", "--context=288"]
        command += ["--continuation=16", "--passkey=288", "--copy=288", "--asked=1"]
        records = self.objects(run(*command, "--retain=window,expected", "--keep=0.5", "--json"))
        of_policy = {}
        for record in records:
            of_policy.setdefault(record["params"]["policy"], {})[record["metric"]] = record["value"]
        self.assertEqual(list(of_policy), ["full", "window", "expected"])
        for policy, held in (("full", 288), ("window", 144), ("expected", 144)):
            self.assertAlmostEqual(of_policy[policy]["held_tokens"], held, delta=32)
            self.assertIn(of_policy[policy]["passkey_found"], (0, 1))
            self.assertLess(of_policy[policy]["copy_ln_probability"], 0)
        self.assertGreater(of_policy["full"]["copy_ln_probability"], of_policy["full"]["copy_no_context_ln_probability"])
        self.assertLess(of_policy["full"]["kl_mean"], 1e-3)
        self.assertLess(of_policy["full"]["kl_mean"], of_policy["window"]["kl_mean"])
        self.assertLess(of_policy["window"]["kv_bytes"], 0.7 * of_policy["full"]["kv_bytes"])
        table = self.assert_ok(run(*command, "--retain=knorm", "--keep=0.4", "--form=q8")).decode()
        for word in ("perplexity with the whole prefix", "\nq8       knorm ", "pass keys hidden in 288 tokens", "passages of 192 tokens in 288"):
            self.assertIn(word, table)

    def test_eval_pages(self):
        text = self.file("sheep.txt", b"".join(b"%d sheep stood on the hill, and one went home. " % i for i in range(80)))
        command = ["eval", "-m", "smollm2", "-f", text, "--threads=1", "--weights=file", "--windows=1", "--context=400"]
        command += ["--continuation=8"]
        records = self.objects(run(*command, "--pages=96,408", "--json"))
        of_pages = {}
        for record in records:
            of_pages.setdefault(record["params"]["pages"], {})[record["metric"]] = record["value"]
        self.assertEqual(list(of_pages), [0, 96, 408])
        self.assertEqual(of_pages[0]["kl_mean"], of_pages[408]["kl_mean"])
        self.assertLess(of_pages[408]["kl_mean"], of_pages[96]["kl_mean"])
        self.assertEqual(of_pages[0]["held_tokens"], of_pages[96]["held_tokens"])
        command += ["--retain=knorm", "--keep=0.5", "--passkey=400", "--asked=1"]
        table = self.assert_ok(run(*command, "--pages=128", "--form=q4")).decode()
        self.assertEqual(table.count("\nq4       full          uniform     100%    128 "), 2)
        self.assertEqual(table.count("\nq4       knorm         uniform      50%    all "), 2)
        self.assert_fails(run(*command, "--pages=0"), 2, "'0'")

    def test_eval_stream(self):
        text = self.file("sheep.txt", b"".join(b"%d sheep stood on the hill, and one went home. " % i for i in range(60)))
        command = ["eval", "-m", "smollm2", "-f", text, "--threads=1", "--weights=file", "--tokens=400", "--parts=2"]
        command += ["--stream=window=192,overlap=64", "--stream=window=192,overlap=64,sinks=0"]
        records = self.objects(run(*command, "--json"))
        of_stream = {}
        for record in records:
            of_part = of_stream.setdefault(record["params"]["stream"], {}).setdefault(record["params"].get("part"), {})
            of_part[record["metric"]] = record["value"]
        streams = [f"window=192,overlap=64,sinks={sinks}" for sinks in (4, 0)] + ["recomputed,window=192,overlap=64"]
        self.assertEqual(list(of_stream), streams)
        sinks, none, recomputed = (of_stream[stream] for stream in streams)
        for parts in (sinks, none, recomputed):
            self.assertEqual(list(parts), [1, 2, None])
            self.assertTrue(1 < parts[2]["perplexity"] < 20, parts)
            product = parts[1]["perplexity"] * parts[2]["perplexity"]
            self.assertAlmostEqual(parts[None]["perplexity"] ** 2, product, delta=0.05 * product)
        self.assertEqual([parts[None]["slides"] for parts in (sinks, none, recomputed)], [2, 2, 2])
        self.assertEqual(recomputed[None]["recomputed_tokens"], 2 * 64)
        self.assertLess(sinks[2]["perplexity"], none[2]["perplexity"])
        table = self.assert_ok(run(*command)).decode()
        for word in ("400 tokens of text", "  3: f16 recomputed,window=192,overlap=64\n", "\nslides ", "\nall "):
            self.assertIn(word, table)
        self.assert_fails(run(*command, "--retain=knorm"), 2, "--stream", "--retain")
        self.assert_fails(run(*command[:5], "--stream=windows=9"), 2, "windows")
        self.assert_fails(run(*command[:5], "--stream=window=1024", "--tokens=9000"), 2, "--tokens")

    def test_eval_retention_tells_what_is_wrong(self):
        text = self.file("short.txt", b"One sheep. " * 200)
        command = ["eval", "-m", "smollm2", "-f", text, "--windows=1"]
        self.assert_fails(run(*command, "--retain=best"), 2, "best", "snapkv")
        self.assert_fails(run(*command, "--retain=knorm", "--keep=0"), 2, "--keep")
        self.assert_fails(run(*command, "--retain=knorm", "--shape=round"), 2, "round", "uniform")
        self.assert_fails(run(*command, "--retain=knorm", "--context=4096"), 2, "not enough")
        self.assert_fails(run(*command, "--keep=0.5"), 2, "--retain")
        self.assert_fails(run(*command, "--retain=window", "--shape=pyramid"), 2, "window", "leave the shape out")
        # What can't be hidden is told before anything is measured.
        command += ["--context=256", "--continuation=4", "--retain=window", "--keep=0.05"]
        self.assert_fails(run(*command, "--passkey=10"), 2, "10 tokens", "needs")
        self.assert_fails(run(*command, "--copy=2000"), 2, "a longer text")

    def test_eval_takes_each_policys_own_shape_and_what_stays_as_asked(self):
        text = self.file("sheep.txt", b"".join(b"%d sheep stood on the hill. " % i for i in range(90)))
        command = ["eval", "-m", "smollm2", "-f", text, "--windows=1", "--weights=file", "--form=f16", "--context=256"]
        command += ["--continuation=4", "--json", "--keep=0.25"]
        result = run(*command, "--retain=kvzip,knorm,window", "--shape=global,uniform")
        self.assertIn("left out: knorm with global", result.stderr.decode())
        shapes = {(record["params"]["policy"], record["params"]["shape"]) for record in self.objects(result)}
        tried = {("kvzip", "global"), ("kvzip", "uniform"), ("knorm", "uniform"), ("window", "uniform")}
        self.assertEqual(shapes, {("full", "uniform"), *tried})
        own = run(*command, "--retain=kvzip,knorm")
        self.assertIn("more is held than was asked for", own.stderr.decode())  # 96 of 256 tokens always stay
        bare = run(*command, "--retain=kvzip,knorm", "--kept-recent=0", "--kept-sinks=0")
        self.assertNotIn("always stay", bare.stderr.decode())
        for result, held in ((own, 96), (bare, 64)):
            records = [record for record in self.objects(result) if record["params"]["policy"] != "full"]
            shapes = {(record["params"]["policy"], record["params"]["shape"]) for record in records}
            self.assertEqual(shapes, {("kvzip", "global"), ("knorm", "uniform")})
            self.assertEqual({r["value"] for r in records if r["metric"] == "held_tokens"}, {held})

    def test_eval_text_as_a_table(self):
        table = self.assert_ok(self.eval_text("--form-k=q8,q3", "--form-v=q4", "--after-the-fact", "--weights=file")).decode()
        for word in ("47 predictions", "after the fact", "perplexity", "\nq8/q4 ", "\nq3/q4 "):
            self.assertIn(word, table)
        self.assertNotIn("noise", table)
        self.assertIn("noise", self.assert_ok(self.eval_text("--form=f16", "--weights=file")).decode())

    def test_eval_text_that_does_not_suffice(self):
        path = self.file("short.txt", b"word " * 100)
        self.assert_fails(run("eval", "-m", "smollm2", "-f", path), 2, "tokens", "3 windows of 2048")
        command = ("eval", "-m", "smollm2", "-f", path, "--windows=1", "--weights=file")
        self.assert_fails(run(*command, "--context=9000"), 2, "8192")
        self.assert_fails(run(*command, "--context=64", "--kv-memory=1M", "--threads=1"), 1, "KV budget")

    def test_interrupt_stops_eval(self):
        path = self.file("long.txt", b"word " * 2100)
        command = [PROGRAM, "eval", "-m", "smollm2", "-f", str(path), "--windows=1", "--progress", "--threads=1"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
            self.assertIn(b"tokens (", process.stderr.readline())
            process.send_signal(signal.SIGINT)
            text, errors = process.communicate(timeout=100)
        self.assertEqual((process.returncode, text), (130, b""), errors)

    def test_bench_decode_and_prefill(self):
        common = ("-m", "smollm2", "--form=f16,q4", "--depth=0,300", "--threads=1", "--rounds=1", "--json")
        decode = self.objects(run("bench", "decode", *common, "--tokens=2", "--sequences=2"))
        prefill = self.objects(run("bench", "prefill", *common, "--tokens=20"))
        for name, tokens, sequences, records in (("decode", 2, 2, decode), ("prefill", 20, 1, prefill)):
            self.assertEqual({(record["bench"], record["metric"]) for record in records}, {(name, "tokens_per_s")})
            params = {
                "model": "smollm2", "weights": "file", "tokens": tokens, "sequences": sequences, "threads": 1,
            }  # fmt: skip
            expected = [{**params, "depth": depth, "form": form} for depth in (0, 300) for form in ("f16", "q4")]
            self.assertEqual([record["params"] for record in records], expected)
            self.assertTrue(all(record["value"] > 0 for record in records))
        table = self.assert_ok(run("bench", "decode", *common[:-1], "--tokens=1")).decode()
        self.assertIn("tokens/s", table)
        self.assertEqual(len(table.splitlines()), 5)

    def test_bench_decode_with_pages(self):
        command = ("bench", "decode", "-m", "smollm2", "--threads=1", "--rounds=1", "--tokens=2", "--depth=300")
        records = self.objects(run(*command, "--form=f16,q4", "--pages=128,2000", "--json"))
        read = [(record["params"]["form"], record["params"]["pages"]) for record in records]
        self.assertEqual(read, [(form, pages) for form in ("f16", "q4") for pages in (0, 128, 2000)])
        self.assertIn(" 128 ", self.assert_ok(run(*command, "--pages=128")).decode())
        self.assert_fails(run(*command, "--pages=0"), 2, "'0'")

    def test_bench_decode_ends_with_the_context(self):
        command = ("bench", "decode", "-m", "smollm2", "--threads=1", "--rounds=1", "--tokens=2")
        self.assert_ok(run(*command, "--depth=8190"))
        self.assert_fails(run(*command, "--depth=0,8191"), 1, "8193", "context holds 8192")

    def test_bench_speedup(self):
        command = ["bench", "speedup", "-m", "smollm2", "--threads=1", "--tokens=2,6"]
        records = self.objects(run(*command, "--json"))
        self.assertEqual([record["params"]["tokens"] for record in records], [2, 2, 2, 6, 6, 6])
        values = {record["metric"]: record["value"] for record in records[3:]}
        self.assertAlmostEqual(values["speedup"], values["without_cache_ms"] / values["with_cache_ms"])
        self.assertIn(b"speedup", self.assert_ok(run(*command)))

    def test_bench_moved(self):
        text = self.file("text", b"".join(b"%d sheep stood on the hill, and one went home. " % i for i in range(80)))
        command = ["bench", "moved", "-m", "smollm2", "--threads=1", "-f", text, "--rounds=1", "--recomputed=0"]
        records = self.objects(run(*command, "--document=80", "--json"))
        self.assertEqual({record["params"]["way"] for record in records}, {"moved", "no_beginning"})
        self.assert_fails(run(*command, "--document=64"), 2, "document of 64 tokens is too short")


@needs_model
class Chat(ProgramTest):
    COMMAND = ("chat", "-m", "smollm2", "--threads=1")

    def test_answers_piped_lines_and_computes_only_what_is_new(self):
        answers = self.objects(run(*self.COMMAND, "-n", 12, "--json", stdin=b"Hello!\n\nAnd you?"))
        self.assertEqual(len(answers), 2)
        first, second = (answer["statistics"] for answer in answers)
        self.assertEqual(first["reused_tokens"], 0)
        self.assertGreaterEqual(second["reused_tokens"], first["prompt_tokens"])
        self.assertLess(second["computed_tokens"], 32)

    def test_a_chat_reused_is_a_chat_computed_anew(self):
        together = self.objects(run(*self.COMMAND, "-n", 8, "--json", stdin=b"Count to five.\n/new\nName a colour.\n"))
        alone = self.objects(run(*self.COMMAND, "-n", 8, "--json", stdin=b"Name a colour.\n"))
        self.assertEqual(together[1]["tokens"], alone[0]["tokens"])

    def test_a_document_behind_another_beginning_is_reused_where_that_is_asked_for(self):
        document = " ".join(f"Sheep {i} stood on the hill." for i in range(20))
        lines = f"Count them: {document}\n/new\nRead this text, please. {document}\nWhy?\n".encode()
        command = [*self.COMMAND, "-n", 2, "--json"]
        first, second, third = (answer["reuse"] for answer in self.objects(run(*command, "--reuse-moved", stdin=lines)))
        self.assertEqual((first["moved_tokens"], first["approximate"]), (0, False))
        self.assertGreater(second["moved_tokens"], 80)
        self.assertEqual((second["moved_chunks"], second["approximate"]), (1, True))
        self.assertEqual((third["moved_tokens"], third["approximate"]), (0, True))
        for answer in self.objects(run(*command, stdin=lines)):
            self.assertEqual((answer["reuse"]["moved_tokens"], answer["reuse"]["approximate"]), (0, False))

    def test_commands(self):
        result = run(*self.COMMAND, "-n", 3, stdin=b"/help\nHi\n/stats\n/quit\nnever read\n")
        self.assertEqual(self.assert_ok(result).count(b"\n"), 1)
        for word in ("/new", "output        3 tokens"):
            self.assertIn(word, result.stderr.decode())

    def test_a_scripts_exit_code_is_that_of_its_last_line_that_failed(self):
        for lines, code in ((b"/dance\nHi\n", 2), (b"/dance\n/use nobody\nHi", 1), (b"Hi\n /dance\n", 0)):
            with self.subTest(lines):
                result = run(*self.COMMAND, "-n", 1, "--json", stdin=lines)
                self.assertEqual(result.returncode, code, result.stderr)
                self.assertEqual(result.stdout.count(b"\n"), 2 if code == 0 else 1)
                self.assertEqual(b"there is no command /dance" in result.stderr, code != 0)
        self.assertIn(b"exit code", self.assert_ok(run("chat", "--help")))

    def test_at_a_terminal_a_mistake_is_told_and_that_is_all(self):
        ours, theirs = os.openpty()
        with subprocess.Popen([PROGRAM, *self.COMMAND], stdin=theirs, stderr=subprocess.PIPE) as process:
            os.close(theirs)
            os.write(ours, b"/dance\n/quit\n")
            _, errors = process.communicate(timeout=60)
        os.close(ours)
        self.assertIn(b"/dance", errors)
        self.assertEqual(process.returncode, 0, errors)

    def test_conversations_side_by_side_each_kept_by_its_class(self):
        lines = b"Hi there!\n/new work\nWrite a poem about the sea.\n/use main\nThanks!\n/stats\n/use nobody\n/new work\n"
        result = run(*self.COMMAND, "-n", 3, "--json", "--strategy=auto", stdin=lines)
        self.assertNotEqual(result.returncode, 0)  # of the last two lines
        answers = [json.loads(line) for line in result.stdout.splitlines()]
        self.assertEqual(len(answers), 3)
        self.assertGreater(answers[2]["statistics"]["reused_tokens"], 20)
        told = result.stderr.decode()
        for word in ("short_chat (", "predictive", "creative (", "compressed", "no conversation 'nobody'", "'work' already"):
            self.assertIn(word, told)
        self.assertRegex(told, r"\* main +4 messages")
        self.assertRegex(told, r"  work +2 messages")

    def test_strategies_of_ones_own(self):
        own = self.assert_ok(run("chat", "-m", "smollm2", "--print-strategies"))
        path = self.file("own.json", own.replace(b'"q4"', b'"q8"'))
        command = [*self.COMMAND, "-n", 2, f"--strategies={path}"]
        (answer,) = self.objects(run(*command, "--strategy=compressed", "--json", stdin=b"Hi\n"))
        self.assertEqual(answer["params"]["form"], "q8")
        self.assert_fails(run(*command, "--strategy=best", stdin=b"Hi\n"), 2, "best", "doubling")
        self.assert_fails(run(*command, "--strategy=auto", "--form=q4"), 2, "--form")
        broken = self.file("broken.json", own.replace(b"exact", b"vague"))
        self.assert_fails(run(*self.COMMAND, f"--strategies={broken}", "--strategy=auto"), 2, "broken.json", "vague")

    def test_tokens_are_given_up_and_streams_go_on_past_the_window(self):
        sheep = " ".join(f"Sheep {i} stood on the hill." for i in range(40))
        command = ["generate", "-m", "smollm2", "--threads=1", "-n", 40, "--json", "-p", sheep]
        (whole,) = self.objects(run(*command))
        self.assertNotIn("retained", whole)
        (half,) = self.objects(run(*command, "--retain=snapkv:keep=0.5,margin=16"))
        self.assertGreaterEqual(half["retained"]["times"], 1)
        self.assertLess(half["retained"]["held_tokens"], 0.7 * whole["statistics"]["prompt_tokens"])
        self.assertLess(half["statistics"]["live_bytes"], 0.7 * whole["statistics"]["live_bytes"])
        (stream,) = self.objects(run(*command, "--stream=window=256,overlap=64"))
        self.assertEqual(stream["statistics"]["prompt_tokens"], whole["statistics"]["prompt_tokens"])
        self.assertEqual(stream["params"]["stream"], "window=256,overlap=64,sinks=4")
        self.assertLess(stream["statistics"]["live_bytes"], whole["statistics"]["live_bytes"])
        self.assert_fails(run(*command, "--retain=best"), 2, "best", "snapkv")
        self.assertGreaterEqual(stream["slid"]["times"], 1)
        held = stream["statistics"]["prompt_tokens"] + 39 - stream["slid"]["retired_tokens"]
        self.assertTrue(64 < held <= 256, stream["slid"])
        self.assertNotIn("slid", whole)
        self.assert_fails(run(*command, "--stream=window=100"), 2, "window of 100")
        self.assert_fails(run(*command, "--stream=window=512", "--retain=knorm"), 2, "one of the two")

    def test_what_pages_and_streams_did_is_told(self):
        sheep = " ".join(f"Sheep {i} stood on the hill." for i in range(40))
        command = ["generate", "-m", "smollm2", "--threads=1", "-n", 8, "-p", sheep]
        (some,) = self.objects(run(*command, "--pages=128", "--json"))
        paged, prompt_tokens = some["paged"], some["statistics"]["prompt_tokens"]
        self.assertEqual((paged["steps"], paged["selecting_steps"]), (7, 7))
        self.assertTrue(prompt_tokens < paged["held_tokens"] < prompt_tokens + 8, paged)
        # The first two of 30 layers read everything.
        of_others = (paged["read_tokens"] - paged["held_tokens"] * 2 / 30) * 30 / 28
        self.assertTrue(96 <= of_others <= 128, paged)
        (all_read,) = self.objects(run(*command, "--pages=1024", "--json"))
        self.assertEqual((all_read["paged"]["steps"], all_read["paged"]["selecting_steps"]), (7, 0))
        told = run(*command, "--pages=128", "--stats").stderr.decode()
        self.assertRegex(told, r"\npages +7 of 7 steps left out blocks: a lane read \d+ of \d+ tokens\n")
        self.assertNotIn("window", told)
        told = run(*command, "--stream=window=256,overlap=64", "--stats").stderr.decode()
        self.assertRegex(told, r"\nwindow +slid 1 time; \d+ tokens have left it\n")
        lines = f"{sheep}\n/stats\n".encode()
        told = run(*self.COMMAND, "-n", 4, "--pages=128", stdin=lines).stderr.decode()
        self.assertIn("3 of 3 steps left out blocks", told)

    def test_without_template_and_with_system_message(self):
        command = [*self.COMMAND, "-n", 3, "--json", "--no-template"]
        (answer,) = self.objects(run(*command, stdin=b"Hi\n"))
        (longer,) = self.objects(run(*command, "--system=A talk.", stdin=b"Hi\n"))
        self.assertGreater(longer["statistics"]["prompt_tokens"], answer["statistics"]["prompt_tokens"])

    def test_message_that_does_not_fit_is_told_and_the_chat_goes_on(self):
        result = run(*self.COMMAND, "-n", 2, "--json", stdin=b"word " * 9000 + b"\nHi\n")
        self.assertIn("8192", result.stderr.decode())
        self.assertEqual(len(result.stdout.splitlines()), 1)

    def test_interrupt_stops_the_answer_and_the_next_one_the_chat(self):
        command = [PROGRAM, *self.COMMAND, "-n", "4000", "--temperature=0.8"]
        message = b"Write a very long story about the sea, with many chapters.\n"
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        with subprocess.Popen(command, **pipes) as process:
            process.stdin.write(message)
            process.stdin.flush()
            self.assertTrue(process.stdout.read(10))
            process.send_signal(signal.SIGINT)
            self.drain(process.stdout)
            self.assertIsNone(process.poll())
            process.send_signal(signal.SIGINT)
            _, errors = process.communicate(timeout=60)
        self.assertEqual((process.returncode, errors), (130, b""))

    def drain(self, pipe):
        """Reads until nothing has come for a while: the answer has stopped."""
        end = time.monotonic() + 60
        while time.monotonic() < end:
            ready, _, _ = select.select([pipe], [], [], 2)
            if not ready:
                return
            os.read(pipe.fileno(), 65536)
        self.fail("the answer goes on")


class SchemaChecker(unittest.TestCase):
    def test_faults_are_found(self):
        record = {
            "bench": "speedup", "impl": "kvist", "params": {"tokens": 8}, "metric": "speedup", "value": 2.5,
            "cpu": "x", "isa": "avx2", "commit": "abc",
        }  # fmt: skip
        self.assertEqual(json_schema.faults(record, SCHEMA), [])
        wrong = [{"value": []}, {"metric": "Speed Up"}, {"isa": "mmx"}, {"extra": 1}, {"params": {}}, {"impl": ""}]
        for change in wrong:
            with self.subTest(change):
                self.assertTrue(json_schema.faults({**record, **change}, SCHEMA))
        del record["cpu"]
        self.assertTrue(json_schema.faults(record, SCHEMA))


if __name__ == "__main__":
    if len(sys.argv) < 2 or sys.argv[1].startswith("-"):
        sys.exit("usage: test_program.py PROGRAM [unittest options]")
    PROGRAM = os.path.abspath(sys.argv.pop(1))
    unittest.main()
