# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The Kvist authors
"""A llama-server of one slot for a while, and what is asked of it: prompts, and to save and restore its slot."""

import json
import pathlib
import subprocess
import time
import urllib.error
import urllib.request

from peer import PeerError, failure, free_port

MAX_START_S = 120
MAX_ANSWER_S = 1800  # computing a long prompt on a slow machine
CACHE_RAM_MIB = 8192  # its own default


class LlamaServer:
    """Runs from `with` to its end. Saved slots go to folder, its log, too."""

    def __init__(self, program, model, kv, threads, folder):
        self._folder = pathlib.Path(folder)
        self._url = f"http://127.0.0.1:{free_port()}"
        self._log = self._folder / "llama-server.log"
        self.name = f"llama-server with {kv.name}"
        command = [program, "-m", model.path, "-c", model.context, "-np", 1, "-t", threads, "-fa", "on", *kv.options]
        command += ["--cache-ram", CACHE_RAM_MIB, "--slot-save-path", self._folder, "--host", "127.0.0.1"]
        self._command = [str(word) for word in command + ["--port", self._url.rpartition(":")[2]]]

    def __enter__(self):
        with self._log.open("wb") as log:
            try:
                self._process = subprocess.Popen(
                    self._command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT
                )
            except OSError as error:
                raise PeerError(
                    f"{self.name} failed: {self._command[0]} can't be run ({error.strerror}); run `llama_cpp.py build`."
                ) from error
        end = time.monotonic() + MAX_START_S
        while not self._is_ready():
            if self._process.poll() is not None or time.monotonic() > end:
                self.__exit__()
                raise PeerError(self._failure())
            time.sleep(0.05)
        return self

    def __exit__(self, *_):
        self._process.terminate()
        self._process.wait()

    def complete(self, prompt):
        """Computes what of the prompt (tokens) is missing, and one token. Returns its timings, with our wall_ms."""
        started = time.monotonic()
        answer = self._ask("/completion", {"prompt": prompt, "n_predict": 1, "temperature": 0, "cache_prompt": True})
        return {**answer["timings"], "wall_ms": (time.monotonic() - started) * 1e3}

    def slot(self, action):
        """save, restore or erase."""
        return self._ask(f"/slots/0?action={action}", {"filename": "slot"})

    def _is_ready(self):
        try:
            with urllib.request.urlopen(f"{self._url}/health", timeout=5) as answer:
                return answer.status == 200
        except OSError:
            return False

    def _ask(self, path, body):
        data = json.dumps(body).encode()
        request = urllib.request.Request(self._url + path, data, {"Content-Type": "application/json"})
        try:
            with urllib.request.urlopen(request, timeout=MAX_ANSWER_S) as answer:
                return json.load(answer)
        except urllib.error.HTTPError as error:
            said = error.read().decode(errors="replace")
            raise PeerError(f"{self.name} refused {path}: {said.strip() or error}; leave this type out.") from error
        except (OSError, ValueError) as error:
            raise PeerError(f"{self.name} did not answer {path} ({error}): {self._failure()}") from error

    def _failure(self):
        said = self._log.read_text(encoding="utf-8", errors="replace")
        code = self._process.poll()
        advice = "leave this type out, or run it yourself: " + " ".join(self._command)
        return failure(self.name, 0 if code is None else code, said, advice, self._folder)
