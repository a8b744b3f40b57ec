# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The Kvist authors
"""llama.cpp's types of keys and values, as the user names them: q8_0, or q8_0/q4_0 for K and V."""

import dataclasses

from peer import PeerError

BITS = {  # of an element, with the scales: blocks of 32 with one or two f16
    "f32": 32.0,
    "f16": 16.0,
    "bf16": 16.0,
    "q8_0": 8.5,
    "q5_1": 6.0,
    "q5_0": 5.5,
    "q4_1": 5.0,
    "q4_0": 4.5,
    "iq4_nl": 4.5,
}
PLAIN = ("f32", "f16", "bf16")


@dataclasses.dataclass(frozen=True)
class KvType:
    k: str
    v: str

    @property
    def name(self):
        return self.k if self.k == self.v else f"{self.k}/{self.v}"

    @property
    def bits(self):
        """Of an element, where keys and values are equally many."""
        return (BITS[self.k] + BITS[self.v]) / 2

    @property
    def needs_flash(self):
        """llama.cpp reads a quantised V only with flash attention."""
        return self.v not in PLAIN

    @property
    def options(self):
        return ["-ctk", self.k, "-ctv", self.v]


def parse_types(text, known=tuple(BITS)):
    types = []
    for name in text.split(","):
        k, _, v = name.strip().partition("/")
        for one in (k, v or k):
            if one not in known:
                raise PeerError(
                    f"llama.cpp has no type '{one}' of keys and values here; --types takes {', '.join(known)}."
                )
        types.append(KvType(k, v or k))
    return types
