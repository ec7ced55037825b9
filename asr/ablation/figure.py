"""The figure of an ablation: the difference of each row's error rates with its interval, beside a line at zero."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from asr.ablation.table import METRICS, Line, Metric
from asr.config import BASE
from asr.pictures import save

_BETTER, _WORSE, _UNSURE = "#1b7837", "#b2182b", "#7f7f7f"


def draw_differences(path: Path, lines: Sequence[Line], title: str) -> None:
    """Draw the rows that are compared with another, the best by dev CER on top."""
    shown = sorted((line for line in lines if line.contests), key=lambda line: -_value(line, "cer"))
    figure = Figure(figsize=(10, 1.5 + 0.27 * max(1, len(shown))), layout="constrained")
    figure.suptitle(title)
    axes = figure.subplots(1, 2, sharey=True)
    for axis, metric in zip(axes, reversed(METRICS), strict=True):
        _draw(axis, shown, metric)
    names = [line.name if line.against == BASE else f"{line.name} (minus {line.against}'s)" for line in shown]
    axes[0].set_yticks(range(len(shown)), names)
    axes[0].set_ylim(-0.7, len(shown) - 0.3)
    save(figure, path)


def _draw(axis: Axes, lines: Sequence[Line], metric: Metric) -> None:
    axis.axvline(0, color="black", linewidth=1)
    for y, line in enumerate(lines):
        contest = line.contests[metric]
        value, low, high = (100 * x for x in contest.difference.estimate)
        colour = _UNSURE if not contest.shown else _BETTER if value < 0 else _WORSE
        axis.plot([low, high], [y, y], color=colour, linewidth=1.5)
        axis.plot(value, y, "o", color=colour, markerfacecolor=colour if contest.sure else "white", markersize=6)
    axis.set_xlabel(f"dev {metric.upper()}: points more than base")
    axis.grid(axis="x", alpha=0.3)


def _value(line: Line, metric: Metric) -> float:
    return line.contests[metric].difference.estimate.value
