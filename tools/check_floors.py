#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The Kvist authors
"""Checks that modules include only what stands on lower floors (docs/architecture.md).

A module includes its own headers, those of lower floors and public ones; modules of one floor don't see each other.
A public header includes only public headers and the standard library. Only src/model sees ggml. Tests may look
anywhere, but for ggml. Usage: check_floors.py [--self-test] [ROOT]; exits with 1 and a line for each fault.
"""

import pathlib
import re
import sys
import tempfile

FLOORS = {
    "base": 0,
    "codec": 1,
    "policy": 1,
    "tier": 1,
    "storage": 2,
    "kernels": 2,
    "cache": 3,
    "model": 4,
    "tune": 4,
    "engine": 5,
    "server": 6,
    "apps": 7,
}
INCLUDE = re.compile(r'\s*#\s*include\s*(?:"([^"]+)"|<([^>]+)>)')
GGML_HEADER = re.compile(r"(?:.*/)?(?:ggml|gguf)[\w-]*\.h")
SOURCE_FOLDERS = ("include/kvist", "src", "apps", "bench", "tests", "examples", "python")


def module_of(path):
    """The module a file belongs to: the folder below src/, or apps; None for what stands on no floor."""
    if path.parts[0] == "src" and len(path.parts) > 2:
        return path.parts[1]
    return "apps" if path.parts[0] == "apps" else None


def fault(path, header, quoted, own_headers):
    """What is wrong with path including header, or None. own_headers: the files of the project's ggml-like names."""
    module = module_of(path)
    if GGML_HEADER.fullmatch(header) and header not in own_headers and module != "model":
        return f"includes {header}: only src/model sees ggml"
    if path.parts[0] == "include":
        if header.startswith("kvist/"):
            return None
        if quoted or "." in header or header.split("/")[0] in FLOORS:
            return f"includes {header}: a public header includes only kvist/*.h and the standard library"
        return None
    if module is None or path.stem.endswith("_test"):
        return None
    if module not in FLOORS:
        return f"is of the module {module}, which has no floor: give it one in tools/check_floors.py"
    other = header.split("/")[0] if quoted and "/" in header else None
    if path.parts[0] == "src" and other in ("apps", "bench", "tests", "examples"):
        return f"includes {header}: src/ includes nothing from {other}/"
    if other in (None, module) or other not in FLOORS or FLOORS[other] < FLOORS[module]:
        return None
    return f"{module} (floor {FLOORS[module]}) includes {header} (floor {FLOORS[other]})"


def check(root):
    """A line for each fault below root."""
    files = [path.relative_to(root) for folder in SOURCE_FOLDERS for path in sorted((root / folder).rglob("*"))]
    files = [path for path in files if path.suffix in (".h", ".cc") and not any(p.startswith(".") for p in path.parts)]
    own_headers = {str(path.relative_to("src")) for path in files if path.parts[0] == "src"}
    faults = []
    for path in files:
        for number, line in enumerate((root / path).read_text(errors="replace").splitlines(), 1):
            match = INCLUDE.match(line)
            header = match and (match[1] or match[2])
            wrong = header and fault(path, header, bool(match[1]), own_headers)
            if wrong:
                faults.append(f"{path}:{number}: {wrong}")
    return faults


def self_test():
    """Each file of a small tree with the number of faults it should give."""
    cases = {
        "src/base/fine.h": ('#include <vector>\n#include "kvist/error.h"\n', 0),
        "src/base/higher.h": ('#include "codec/form.h"\n', 1),
        "src/storage/lower.cc": ('#include "base/fine.h"\n#include "codec/form.h"\n#include "storage/a.h"\n', 0),
        "src/storage/sibling.cc": ('  #  include "kernels/attention.h"\n', 1),
        "src/storage/anything_test.cc": ('#include "kernels/attention.h"\n', 0),
        "src/cache/commented.cc": ('// #include "engine/x.h"\n', 0),
        "src/model/sees_ggml.cc": ("#include <ggml.h>\n#include <ggml-cpu.h>\n#include <gguf.h>\n", 0),
        "src/model/gguf.h": ("#include <cstdint>\n", 0),
        "src/engine/own_gguf.cc": ('#include "model/gguf.h"\n', 0),
        "src/engine/sees_ggml.cc": ('#include "ggml.h"\n#include <ggml-backend.h>\n', 2),
        "src/engine/test_sees_ggml_test.cc": ("#include <gguf.h>\n", 1),
        "src/attic/unknown.cc": ('#include "base/fine.h"\n', 1),
        "apps/kvist.cc": ('#include "server/http.h"\n', 0),
        "src/engine/higher.cc": ('#include "bench/scenario/x.h"\n#include "apps/terminal.h"\n', 2),
        "bench/free.cc": ('#include "engine/x.h"\n', 0),
        "bench/sees_ggml.cc": ("#include <ggml.h>\n", 1),
        "include/kvist/fine.h": ('#include <span>\n#include "kvist/error.h"\n', 0),
        "include/kvist/internal.h": ('#include "base/fine.h"\n', 1),
        "include/kvist/internal_in_brackets.h": ("#include <base/fine.h>\n#include <xxhash.h>\n", 2),
    }
    with tempfile.TemporaryDirectory() as folder:
        root = pathlib.Path(folder)
        for name, (text, _) in cases.items():
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_text(text)
        faults = check(root)
    wrong = 0
    for name, (_, expected) in cases.items():
        found = [line for line in faults if line.startswith(f"{name}:")]
        if len(found) != expected:
            print(f"self-test: {name} should give {expected} faults and gave {len(found)}: {found}")
            wrong = 1
    return wrong


def main(arguments):
    if "--self-test" in arguments:
        return self_test()
    root = pathlib.Path(arguments[0]) if arguments else pathlib.Path(__file__).resolve().parents[1]
    faults = check(root)
    print("\n".join(faults) or "Every include keeps to the floors.")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
