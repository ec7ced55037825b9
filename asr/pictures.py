"""Plots of a model's features, and below them of its attention.

Shapes: T frames, F bins, L tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from io import BytesIO
from pathlib import Path

import matplotlib as mpl
from matplotlib.figure import Figure
from torch import Tensor

from asr.files import write_whole


def draw_features(
    x_TF: Tensor, seconds: float, title: str = "", maps: Sequence[Tensor] = (), labels: Sequence[str] = ()
) -> Figure:
    """Draw features and, below them, each layer's attention map (L, T).  labels: of the L tokens."""
    height = max(1.8, 0.13 * len(labels))
    figure = Figure(figsize=(9, 2.0 + height * len(maps)), layout="constrained")
    heights = [1.8, *[height] * len(maps)]
    axes = figure.subplots(len(heights), 1, sharex=True, height_ratios=heights, squeeze=False)[:, 0]
    axes[0].imshow(x_TF.T, origin="lower", aspect="auto", extent=(0, seconds, 0, x_TF.shape[1]), cmap="magma")
    axes[0].set(title=title, ylabel="mel bin")
    for layer, (axis, attention_LT) in enumerate(zip(axes[1:], maps, strict=True)):
        extent = (0, seconds, len(labels) - 0.5, -0.5)
        axis.imshow(attention_LT, aspect="auto", extent=extent, cmap="viridis", interpolation="nearest")
        axis.set_yticks(range(len(labels)), [label.replace("$", r"\$") for label in labels], fontsize=6)
        axis.set_ylabel(f"layer {layer}")
    axes[-1].set_xlabel("seconds")
    return figure


def save(figure: Figure, path: Path) -> None:
    """Write a figure atomically as a PNG file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, as_png(figure))


def as_png(figure: Figure) -> bytes:
    """Return a figure as the bytes of a PNG file."""
    file = BytesIO()
    with mpl.rc_context({"font.family": "DejaVu Sans"}):
        figure.savefig(file, dpi=110, format="png")
    return file.getvalue()
