# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The Kvist authors
"""Tests of python/kvist/sdpa_worker.py. Run: python3 tests/python/test_sdpa_worker.py

What computes runs with a Python that has torch (2.5 or later) and is skipped elsewhere."""

import importlib.util
import json
import math
import pathlib
import signal
import subprocess
import sys
import time
import unittest

sys.dont_write_bytecode = True
FOLDER = pathlib.Path(__file__).resolve().parents[2] / "python" / "kvist"
sys.path.insert(0, str(FOLDER))
import sdpa_worker  # noqa: E402

needs_torch = unittest.skipUnless(importlib.util.find_spec("torch"), "this Python has no torch")
LAYERS = [
    {"query_heads": 6, "kv_heads": 2, "key_dim": 16, "value_dim": 16, "window": 0, "scale": 0},
    {"query_heads": 2, "kv_heads": 1, "key_dim": 16, "value_dim": 8, "window": 9, "scale": 0.5},
]


def open_command(stored=20, step=1, dtype="f32"):
    return {
        "command": "open", "layers": LAYERS, "stored_tokens": stored, "step_tokens": step, "threads": 1, "type": dtype,
    }  # fmt: skip


class Process:
    """The worker as the program starts it; options: Python's own."""

    def __init__(self, *options):
        command = [sys.executable, *options, str(FOLDER / "sdpa_worker.py")]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def ask(self, line):
        self.process.stdin.write((line if isinstance(line, str) else json.dumps(line)) + "\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())

    def end(self):
        """Its exit code after the input ends."""
        rest, _ = self.process.communicate(timeout=60)
        assert rest == ""
        return self.process.returncode


class Protocol(unittest.TestCase):
    def test_what_is_wrong_is_answered_and_the_next_command_is_heard(self):
        worker = Process("-I", "-S")  # without packages, hence without torch
        self.assertIn("can't import torch", worker.ask(open_command())["error"])
        self.assertIn("nothing is open", worker.ask({"command": "run"})["error"])
        self.assertIn("'dance'", worker.ask({"command": "dance"})["error"])
        self.assertIn("JSONDecodeError", worker.ask("{")["error"])
        self.assertIn("can't import torch", worker.ask(open_command())["error"])
        self.assertEqual(worker.end(), 0)

    def test_an_interrupt_is_left_to_the_program(self):
        worker = Process("-I", "-S")
        worker.ask({"command": "run"})
        worker.process.send_signal(signal.SIGINT)
        time.sleep(0.1)
        self.assertIn("nothing is open", worker.ask({"command": "run"})["error"])
        self.assertEqual(worker.end(), 0)

    def test_windows_leave_out_what_no_query_sees(self):
        for stored in range(30):
            for window in (0, 1, 9, 20):
                seen = [token for token in range(stored + 1) if not window or stored - token < window]
                self.assertEqual(sdpa_worker.first_visible_token(stored, window), seen[0])

    @needs_torch
    def test_runs_take_time(self):
        worker = Process()
        for dtype in sdpa_worker.DTYPES:
            self.assertEqual(worker.ask(open_command(dtype=dtype)), {})
            self.assertGreater(worker.ask({"command": "run"})["ms"], 0)
        self.assertIn("KeyError", worker.ask(open_command(dtype="f64"))["error"])
        self.assertEqual(worker.end(), 0)


@needs_torch
class Attention(unittest.TestCase):
    def test_is_softmax_over_what_each_query_sees(self):
        import torch

        for stored, step in ((0, 1), (20, 1), (0, 7), (0, 12), (3, 12), (20, 12)):
            task = sdpa_worker.Task(torch, open_command(stored, step))
            for i, layer in enumerate(LAYERS):
                with self.subTest(stored=stored, step=step, layer=i):
                    (queries, keys, values), _ = task.calls[i]
                    expected = self.naive(torch, layer, stored, queries[0], keys[0], values[0])
                    torch.testing.assert_close(task.attend(i)[0], expected, atol=1e-5, rtol=1e-5)

    def naive(self, torch, layer, stored, queries, keys, values):
        """[query head, query, value dim], query by query; keys and values may begin after token 0."""
        num_heads, num_queries, key_dim = queries.shape
        first_token = stored + num_queries - keys.shape[1]
        out = torch.empty(num_heads, num_queries, layer["value_dim"])
        for head in range(num_heads):
            kv_head = head * layer["kv_heads"] // num_heads
            for query in range(num_queries):
                end = stored + query + 1
                begin = max(0, end - layer["window"]) if layer["window"] else 0
                self.assertGreaterEqual(begin, first_token)
                seen = slice(begin - first_token, end - first_token)
                scores = keys[kv_head, seen] @ queries[head, query] * (layer["scale"] or 1 / math.sqrt(key_dim))
                out[head, query] = scores.softmax(0) @ values[kv_head, seen]
        return out


if __name__ == "__main__":
    unittest.main()
