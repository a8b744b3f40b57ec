# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The Kvist authors
"""Makes figures and a page of what `kvist bench growth --json` and `kvist eval --json` measured; `kvist report` runs
this file.

Files are read in report_input.py and sorted in report_data.py (growth) and report_quality.py; figures are drawn in
report_figures.py (growth), report_quality_figures.py and report_line_figures.py; the page is in report_page.py, the
words of both languages in report_text.py. Nothing is written before everything is made.
"""

import argparse
import errno
import os
import pathlib
import re
import signal
import sys
import tempfile

from report_data import growth_record, sort_records
from report_input import ReportError, nothing_to_report, read_results
from report_page import make_page
from report_quality import sort_quality
from report_text import LANGUAGES, Words


def say(kind, text):
    print(f"kvist: {kind}: {text}", file=sys.stderr, flush=True)


def make_report(paths, folder, language, note):
    """Writes the figures and index.html into folder, which is made where it is missing, and returns the page's path."""
    drawing, drawers = import_drawing()
    sections = read_sections(paths, note)
    words = Words(language)
    texts = set().union(words.text(), *(drawers[each.kind].texts_of(each, words) for each in sections))
    with drawing.drawing_with_fonts_for(texts):
        drawings = [list(drawers[section.kind].draw_section(section, words)) for section in sections]
    contents = name_files(sections, drawings)
    contents["index.html"] = make_page(sections, drawings, words).encode("utf-8")  # last: it stands for the whole
    write_files(folder, contents)
    return folder / "index.html"


def read_sections(paths, note):
    results = read_results(paths, note)
    sections = sort_records([growth_record(line) for line in results["growth"]], note)
    sections += sort_quality(results["eval"], note)
    if not sections:
        raise nothing_to_report(paths)
    return sections


def import_drawing():
    """What all figures share, and {kind of section: the module that draws it}."""
    try:
        import report_drawing
        import report_figures
        import report_line_figures
        import report_quality_figures
    except ImportError as error:
        if (error.name or "").startswith("report_"):
            raise
        raise ReportError(
            f"Drawing needs matplotlib, and {sys.executable} can't load it ({error}); run `make build` in Kvist's "
            f"source tree, which puts it into .venv, or where that is not used install the Debian package "
            f"python3-matplotlib."
        ) from error
    drawers = {"growth": report_figures, "forms": report_quality_figures, "retention": report_quality_figures}
    return report_drawing, {**drawers, **dict.fromkeys(("recall", "pages", "streams"), report_line_figures)}


def name_files(sections, drawings):
    """{name: bytes} of all figures: the geometry or model tells those of sections apart, and a number where several
    machines, commits or settings have the same one."""
    contents = {}
    for section, own in zip(sections, drawings):
        base = "-" + (re.sub(r"[^\w.]+", "_", section.label) or "_")
        suffix = base
        number = 1
        while any(f"{each.name}{suffix}.png" in contents for each in own):
            number += 1
            suffix = f"{base}-{number}"
        contents.update({f"{each.name}{suffix}.png": each.png for each in own})
    return contents


def write_files(folder, contents):
    """contents: {name: bytes}. A file is there whole or as it was before."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, content in contents.items():
            with tempfile.NamedTemporaryFile(dir=folder, prefix=".", suffix=".partial", delete=False) as file:
                try:
                    file.write(content)
                    file.flush()
                    os.fchmod(file.fileno(), 0o666 & ~_umask())
                    os.replace(file.name, folder / name)
                except BaseException:
                    os.unlink(file.name)
                    raise
    except OSError as error:
        raise ReportError(_explain(error, folder)) from error


def _umask():
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _explain(error, folder):
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return f"The disk of {folder} is full; make room, or choose another folder with -o."
    if error.errno in (errno.ENOTDIR, errno.EEXIST):
        return f"{folder} is not a folder; choose another one with -o."
    return f"{folder} can't be written to ({error.strerror}); choose another folder with -o."


def parse(arguments):
    parser = argparse.ArgumentParser(
        prog="kvist report",
        description="Makes figures (PNG) and a page (index.html, everything in it) of what was measured of growth and "
        "quality.",
        epilog="For instance: kvist eval -m smollm2 -f TEXT --retain all --json > quality.jsonl && kvist report "
        "quality.jsonl -o report",
    )
    parser.add_argument(
        "results",
        nargs="+",
        metavar="RESULTS",
        help="what `kvist bench growth --json` or `kvist eval --json` printed; - is standard input",
    )
    parser.add_argument("-o", "--output", type=pathlib.Path, required=True, metavar="DIR", help="where to write them")
    parser.add_argument(
        "--lang", choices=LANGUAGES, default="en", help="language of the labels: English (the default) or Chinese"
    )
    return parser.parse_args(arguments)


def main(arguments=None):
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # leaves no half a file
    parsed = parse(arguments)
    try:
        page = make_report(parsed.results, parsed.output, parsed.lang, lambda text: say("note", text))
    except ReportError as error:
        say("error", error)
        return 1
    except KeyboardInterrupt:
        return 130
    print(page)
    return 0


if __name__ == "__main__":
    sys.exit(main())
