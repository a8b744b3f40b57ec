# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The Kvist authors
"""kvpress's presses that are measured, and what in Kvist comes nearest to each."""

import dataclasses

from peer import PeerError


@dataclasses.dataclass(frozen=True)
class Press:
    """One of kvpress's, with its defaults but for the options, and what comes nearest to it in Kvist."""

    name: str
    kind: str  # kvpress's class
    policy: str
    shape: str = "uniform"
    options: dict = dataclasses.field(default_factory=dict)
    inner: "Press | None" = None  # that it wraps
    attention: str = "sdpa"  # transformers' implementation of it
    alone: bool = False  # has to be there while the prefix is computed, else it can be called afterwards

    def setting(self):
        """As the probe takes it."""
        inner = self.inner.setting() if self.inner else None
        return {**vars(self), "inner": inner}


NONE = Press("none", "", "full")  # the whole cache once more, token by token
SNAPKV = Press("SnapKV", "SnapKVPress", "snapkv")
EXPECTED = Press("ExpectedAttention-0.01", "ExpectedAttentionPress", "expected", options={"epsilon": 0.01})
PRESSES = (
    Press("ObservedAttention", "ObservedAttentionPress", "h2o", attention="eager", alone=True),
    SNAPKV,
    Press("AdaKV-SnapKV", "AdaKVPress", "snapkv", "adaptive", inner=SNAPKV),
    Press("PyramidKV", "PyramidKVPress", "snapkv", "pyramid"),
    Press("TOVA", "TOVAPress", "tova"),
    Press("StreamingLLM", "StreamingLLMPress", "window"),
    Press("Random", "RandomPress", "random"),
    Press("KeyDiff", "KeyDiffPress", "keydiff"),
    Press("ExpectedAttention", "ExpectedAttentionPress", "expected"),
    EXPECTED,
    Press("AdaKV-ExpectedAttention", "AdaKVPress", "expected", "adaptive", inner=EXPECTED),
    Press("Knorm", "KnormPress", "knorm"),
    Press("KVzip", "KVzipPress", "kvzip", "global", alone=True),
)
NAMES = ", ".join(press.name for press in PRESSES)


def presses_of(text):
    """Those named in text, or all."""
    known = {press.name: press for press in PRESSES}
    if text == "all":
        return list(PRESSES)
    names = text.split(",")
    if unknown := [name for name in names if name not in known]:
        raise PeerError(f"--presses takes all or {NAMES}, and '{unknown[0]}' is none of them.")
    return [known[name] for name in dict.fromkeys(names)]
