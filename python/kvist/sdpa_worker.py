# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The Kvist authors
"""torch's attention as a contestant of `kvist bench attention`, in a process of its own.

Reads one JSON object a line from standard input and answers each with one on standard output, until the input ends:

    {"command": "open", "layers": [{"query_heads", "kv_heads", "key_dim", "value_dim", "window", "scale"}, ...],
     "stored_tokens": 4096, "step_tokens": 1, "threads": 2, "type": "f32"}    ->  {}
    {"command": "run"}                                                        ->  {"ms": 12.5}

Whatever goes wrong is answered with {"error": "a sentence"}. Waiting for a command, the process sleeps."""

import json
import signal
import sys
import time

NUM_RANDOM = 1_048_573  # a prime, so that rows of keys don't repeat
DTYPES = {"f32": "float32", "bf16": "bfloat16", "f16": "float16"}
THREADS_SLEEP_S = 0.05  # OpenMP's threads spin for some milliseconds after a run


class WorkerError(Exception):
    """A sentence for the user."""


def first_visible_token(stored_tokens, window):
    """What a step's first query sees begins here; a cache of that window holds nothing before it."""
    return max(0, stored_tokens + 1 - window) if window else 0


def hidden_tokens(torch, visible_tokens, step_tokens, window):
    """[query, token]: True where the query doesn't see the token. The last query sees the last token."""
    ends = torch.arange(visible_tokens - step_tokens + 1, visible_tokens + 1).unsqueeze(1)
    places = torch.arange(visible_tokens)
    hidden = places >= ends
    return hidden | (places < ends - window) if window else hidden


class Task:
    """The keys, values and queries of all layers, and the masks that layers share."""

    def __init__(self, torch, command):
        torch.set_num_threads(command["threads"])
        self._torch = torch
        self._dtype = getattr(torch, DTYPES[command["type"]])
        self._pool = torch.randn(NUM_RANDOM, generator=torch.Generator().manual_seed(1)).to(self._dtype)
        self._masks = {}
        self.calls = [self._call(layer, command) for layer in command["layers"]]

    def run(self):
        """Milliseconds that the attention of all layers takes."""
        with self._torch.inference_mode():
            start = time.perf_counter()
            for i in range(len(self.calls)):
                self.attend(i)
            return (time.perf_counter() - start) * 1e3

    def attend(self, layer):
        """[1, query head, query, value dim] of one layer."""
        tensors, options = self.calls[layer]
        return self._torch.nn.functional.scaled_dot_product_attention(*tensors, enable_gqa=True, **options)

    def _call(self, layer, command):
        """Queries, keys and values of a layer, and the options of torch's call."""
        step, stored, window = command["step_tokens"], command["stored_tokens"], layer["window"]
        visible = stored + step - first_visible_token(stored, window)
        tensors = [
            self._numbers(layer["query_heads"], step, layer["key_dim"]),
            self._numbers(layer["kv_heads"], visible, layer["key_dim"]),
            self._numbers(layer["kv_heads"], visible, layer["value_dim"]),
        ]
        options = {"scale": layer["scale"] or None}
        if step > 1 and step == visible and not 0 < window < step:
            options["is_causal"] = True  # torch skips what is hidden; elsewhere it has to be told by a mask
        elif step > 1:
            options["attn_mask"] = self._mask(visible, step, window)
        return tensors, options

    def _mask(self, visible, step, window):
        """In the queries' type: torch would convert a mask of bools in each call."""
        if window not in self._masks:
            hidden = hidden_tokens(self._torch, visible, step, window)
            mask = self._torch.zeros(step, visible, dtype=self._dtype)
            self._masks[window] = mask.masked_fill_(hidden, float("-inf"))
        return self._masks[window]

    def _numbers(self, heads, tokens, dim):
        """[1, head, token, dim] from the pool, each tensor beginning at another place."""
        self._pool = self._torch.roll(self._pool, 350_377)
        numbers = self._torch.empty(heads * tokens * dim, dtype=self._dtype)
        for begin in range(0, numbers.numel(), NUM_RANDOM):
            piece = numbers[begin : begin + NUM_RANDOM]
            piece.copy_(self._pool[: piece.numel()])
        return numbers.view(1, heads, tokens, dim)


def import_torch():
    try:
        import torch
    except ImportError as error:
        raise WorkerError(
            f"this Python can't import torch ({error}); install it there, or give one that has it"
        ) from error
    version = tuple(int(part) for part in torch.__version__.split(".")[:2])
    if version < (2, 5):
        raise WorkerError(f"torch {torch.__version__} has no attention with grouped queries; 2.5 or later is needed")
    return torch


class Worker:
    def __init__(self):
        self._task = None

    def answer(self, command):
        if command.get("command") == "open":
            self._task = None  # its memory first
            self._task = Task(import_torch(), command)
            return {}
        if command.get("command") == "run":
            if self._task is None:
                raise WorkerError("nothing is open to be run")
            milliseconds = self._task.run()
            time.sleep(THREADS_SLEEP_S)
            return {"ms": milliseconds}
        raise WorkerError(f"no command {command.get('command')!r}; known: open, run")


def main():
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the program, which closes our input
    worker = Worker()
    for line in sys.stdin:
        try:
            answer = worker.answer(json.loads(line))
        except WorkerError as error:
            answer = {"error": str(error)}
        except Exception as error:  # whatever torch may raise: the program tells it
            answer = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
