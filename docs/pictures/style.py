"""What the pictures have in common: colours that the colour-blind can tell apart, sizes, and small files."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path
from typing import Any

from cycler import cycler
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image

from asr.files import write_whole
from asr.pictures import as_png

# Okabe and Ito 2008
BLUE, ORANGE, GREEN, PURPLE, SKY, RED = "#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00"
GREY, PALE = "#7f7f7f", "#d9d9d9"
FEATURES, SHARES = "magma", "Blues"  # colour maps for features and for values between 0 and 1
STYLE: dict[str, Any] = {
    "font.family": "DejaVu Sans",
    "font.size": 10,
    "axes.titlesize": 10,
    "axes.prop_cycle": cycler(color=[BLUE, ORANGE, GREEN, PURPLE, SKY, RED]),
    "axes.spines.top": False,
    "axes.spines.right": False,
    "figure.titlesize": 11,
    "image.interpolation": "nearest",
    "legend.fontsize": 9,
    "legend.frameon": False,
    "lines.linewidth": 1.8,
}
WIDTH = 8.0  # inches; 880 pixels
COLOURS = 255  # per file


def figure(title: str, height: float, rows: int = 1, columns: int = 1, **options: Any) -> tuple[Figure, Any]:
    """Return a new figure and its axes as (rows, columns); options are those of `Figure.subplots`."""
    new = Figure(figsize=(WIDTH, height), layout="constrained")
    new.suptitle(title)
    return new, new.subplots(rows, columns, squeeze=False, **options)


def letters(axis: Axes, pieces: list[str], size: int = 7) -> None:
    """Label the rows of a picture with tokens, from the top down."""
    axis.set_yticks(range(len(pieces)), [shown(piece) for piece in pieces], fontsize=size)


def shown(piece: str) -> str:
    """Return a token in visible form: a space as an open box."""
    return piece.replace(" ", "\u2423").replace("$", r"\$")


def save(picture: Figure, path: Path) -> None:
    """Write a picture as PNG with few colours, for a small file; it appears whole or not at all."""
    small, file = Image.open(BytesIO(as_png(picture))).convert("RGB"), BytesIO()
    small.quantize(COLOURS, dither=Image.Dither.NONE).save(file, "png", optimize=True)
    write_whole(path, file.getvalue())
