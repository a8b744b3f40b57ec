# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 The Kvist authors
"""What all figures of a report have in common: fonts, and the sheet with its title, legend and notes. Only what draws
needs matplotlib (3.6 or newer)."""

import contextlib
import dataclasses
import io
import re

import matplotlib
from matplotlib import font_manager, ft2font
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from report_input import ReportError

DPI = 150
INK = "#333333"


@dataclasses.dataclass(frozen=True)
class Drawing:
    name: str  # of the file, without its ending
    caption: str
    png: bytes


# --- fonts ---

_LIKELY_FONT = re.compile(r"noto.*(cjk|sans-?sc)|wqy|sourcehan|droidsansfallback|simhei|msyh|pingfang", re.IGNORECASE)


def use_fonts_for(text):
    """Sets fonts that have every character of text. ReportError when none has: nothing is drawn as empty boxes."""
    missing = _characters_missing(text, font_manager.findfont("DejaVu Sans"))
    families = ["DejaVu Sans"]
    if missing:
        path = _find_font(missing)
        font_manager.fontManager.addfont(path)
        families.insert(0, font_manager.FontProperties(fname=path).get_name())
    matplotlib.rcParams["font.family"] = families


def _find_font(characters):
    # Not from matplotlib's list of fonts: that is kept from an earlier run, and a font may have been installed since.
    paths = sorted(font_manager.findSystemFonts(), key=lambda path: (not _LIKELY_FONT.search(path), path))
    for path in paths:
        if not _characters_missing(characters, path):
            return path
    raise ReportError(
        f"No font of this system has the characters of the labels ({''.join(sorted(characters))[:8]} ...); install the "
        f"Debian package fonts-noto-cjk or the smaller fonts-wqy-microhei, or make the report with --lang en."
    )


def _characters_missing(characters, path):
    with contextlib.suppress(RuntimeError, OSError):  # a file that is no font has none of them
        font = ft2font.FT2Font(path)
        return {each for each in characters if each.isprintable() and not font.get_char_index(ord(each))}
    return set(characters)


# --- figures ---


class Sheet:
    """A figure with its title above and its notes below the panels. Heights in inches, so that they don't change with
    the figure's size."""

    def __init__(self, width, height, title):
        self.figure = Figure(figsize=(width, height), dpi=DPI, facecolor="white")
        FigureCanvasAgg(self.figure)
        self._width = width
        self._height = height
        self._below = 0.12
        self._beside = 0.004 * width
        heading = self.figure.suptitle(title, y=1 - 0.16 / height, va="top", fontsize=15, fontweight="bold")
        heading.set_in_layout(False)  # there is room for it already

    def add_line(self, text, size=9):
        self.figure.text(0.012, self._below / self._height, text, fontsize=size, color="#555555", va="bottom")
        self._below += 0.24

    def add_list(self, texts, size=9):
        """As many lines as the texts take."""
        renderer = self.figure.canvas.get_renderer()
        lines = [[]]
        for text in texts:
            measured = self.figure.text(0, 0, " · ".join([*lines[-1], text]), fontsize=size)
            if lines[-1] and measured.get_window_extent(renderer).width > 0.97 * self._width * DPI:
                lines.append([])
            lines[-1].append(text)
            measured.remove()
        for line in reversed(lines):
            self.add_line(" · ".join(line), size)

    def add_legend(self, handles):
        num_lines = max(handle.get_label().count("\n") for handle in handles) + 1
        columns = 6 if num_lines == 1 else 4
        num_rows = -(-len(handles) // columns)
        self.figure.legend(
            handles=handles,
            loc="lower center",
            bbox_to_anchor=(0.5, self._below / self._height),
            ncol=columns,
            frameon=False,
            fontsize=10,
            borderaxespad=0,
            borderpad=0.2,
        )
        self._below += 0.1 + 0.2 * num_rows * num_lines

    def add_side_legend(self, groups):
        """groups: {heading or "": handles}, one below the other at the right of the panels."""
        handles, headings = [], []
        for heading, own in groups.items():
            if heading:
                headings.append(len(handles))
                handles.append(Line2D([], [], linestyle="", label=heading))
            handles += own
        place = {"loc": "upper right", "bbox_to_anchor": (0.996, 1 - 0.5 / self._height)}
        legend = self.figure.legend(handles=handles, frameon=False, fontsize=9.5, handlelength=2.6, **place)
        for index in headings:
            legend.get_texts()[index].set(fontweight="bold", color=INK)
        self._beside += legend.get_window_extent(self.figure.canvas.get_renderer()).width / DPI + 0.1

    def png(self):
        """The picture; lay_out comes first where something is placed by where other things are."""
        self.lay_out()
        content = io.BytesIO()
        self.figure.savefig(content, format="png", dpi=DPI, metadata={"Software": "kvist report"})
        return content.getvalue()

    def lay_out(self):
        bottom = (self._below + 0.08) / self._height
        right = 1 - self._beside / self._width
        self.figure.tight_layout(rect=(0.004, bottom, right, 1 - 0.45 / self._height), h_pad=2, w_pad=2)


def origin_text(origin):
    return f"{origin.cpu} · {origin.isa} · {origin.commit}"


@contextlib.contextmanager
def drawing_with_fonts_for(text):
    """Lets draw_section draw text, without the user's own settings of matplotlib and without changing them."""
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update({"text.parse_math": False, "axes.titlesize": 12.5, "axes.labelcolor": "#555555"})
        matplotlib.rcParams.update({"text.color": INK, "hatch.linewidth": 0.9, "font.size": 10})
        use_fonts_for(text)
        yield
