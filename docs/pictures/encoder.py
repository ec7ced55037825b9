"""Pictures of the encoder's parts: norms, positions, scores, windows, layers.

Shapes: B clips, T frames, D width, H heads, K head width, N rows (see asr.model.rows).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator
from torch import Tensor, nn

from asr.checkpoint import ModelFolder
from asr.config import ExperimentConfig, read_config
from asr.data.batch import Batch
from asr.lengths import within
from asr.model.additive import Additive
from asr.model.attention import Form, explicit
from asr.model.band import Chunks, Window
from asr.model.build import build_model
from asr.model.norms import BatchNorm, Norm, PowerNorm, RMSNorm
from asr.model.position import SinusoidalPosition
from asr.model.relative import Rotary, by_distance
from asr.model.rows import Rows
from docs.pictures.material import CLIP, LONG, Material, heard
from docs.pictures.style import BLUE, GREEN, GREY, ORANGE, PALE, SHARES, WIDTH, figure

ROOT = Path(__file__).parents[2]
DIM, HEADS = 144, 4

# ---- norms ----------------------------------------------------------------------------------------------------------

KINDS: dict[str, Norm] = {"layer": nn.LayerNorm, "rms": RMSNorm, "batch": BatchNorm, "power": PowerNorm}


@torch.no_grad()
def norms(material: Material) -> Figure:
    """Draw the input of a norm and the output of each kind: mean and spread by frame and by element."""
    parts, kept = material.model("base"), list[Tensor]()
    batch = material.batch(parts, "en/astcc-followed-by-the-pound-key", "en/seconds", CLIP)
    layer: Any = parts.model.encoder.layers[2]
    layer.attention_residual.norm.register_forward_pre_hook(lambda _, given: kept.append(given[0]))
    _, memory = heard(parts, batch)
    x_ND, real_M = kept[0], within(memory.len_B, int(memory.len_B.max())).flatten()
    what = "mean and standard deviation"
    picture, axes = figure(f"Three clips in a batch, before and after a norm: {what} (grey: padding)", 4.2, 2, 5)
    order_D = x_ND.mean(0).argsort()
    for column, (name, kind) in enumerate({"before": nn.Identity, **KINDS}.items()):
        y_ND = kind(x_ND.shape[1]).train()(x_ND)
        y_MD = y_ND.new_full((len(real_M), y_ND.shape[1]), torch.nan)
        y_MD[real_M] = y_ND
        _spread(axes[0, column], y_MD.mean(1), y_MD.std(1), BLUE)
        _padding(axes[0, column], real_M)
        _spread(axes[1, column], y_ND.mean(0)[order_D], y_ND.std(0)[order_D], ORANGE)
        axes[0, column].set(title=name, xlabel="frame")
        axes[1, column].set(xlabel="element")
        for axis in axes[:, column]:
            axis.set_ylim(*((-2.6, 2.6) if column else (-13, 13)))
    axes[0, 0].set_ylabel("of each frame,\nover all elements")
    axes[1, 0].set_ylabel("of each element,\nover all real frames")
    return picture


def _spread(axis: Axes, mean_X: Tensor, std_X: Tensor, colour: str) -> None:
    at = range(len(mean_X))
    axis.fill_between(at, mean_X - std_X, mean_X + std_X, color=colour, alpha=0.3, linewidth=0)
    axis.plot(at, mean_X, color=colour, linewidth=1.2)
    axis.axhline(0, color=GREY, linewidth=0.6)


def _padding(axis: Axes, real_M: Tensor) -> None:
    axis.fill_between(
        range(len(real_M)), 0, 1, where=(~real_M).tolist(), color=PALE, transform=axis.get_xaxis_transform(), step="mid"
    )


def norm_places(material: Material) -> Figure:
    """Draw how large the vectors between layers are, with norms before and after the sublayers."""
    picture, axes = figure("Size of the vectors on their way up the encoder, one clip", 2.6)
    names = {"base": "norm: pre", "post-norm": "norm: post"}
    for (row, name), colour in zip(names.items(), (BLUE, ORANGE), strict=True):
        parts = material.model(row)
        size = list[float]()
        first, *others = parts.model.encoder.layers
        first.register_forward_pre_hook(lambda _, given, size=size: size.append(_rms(given[0])))
        for layer in (first, *others):
            layer.register_forward_hook(lambda _, given, y_ND, size=size: size.append(_rms(y_ND)))
        heard(parts, material.batch(parts, CLIP))
        axes[0, 0].plot(size, "o-", color=colour, label=name)
    axes[0, 0].set(xlabel="behind encoder layer (0: as it enters the first)", ylabel="root mean square")
    axes[0, 0].set_ylim(bottom=0)
    axes[0, 0].legend()
    return picture


def _rms(x_ND: Tensor) -> float:
    return float(x_ND.square().mean().sqrt())


# ---- positions and scores -------------------------------------------------------------------------------------------

REACH = 40  # frames on either side


@torch.no_grad()
def positions(material: Material) -> Figure:
    """Draw what each kind of position adds to the score of a query and a key, by their distance in frames."""
    picture, axes = figure("What positions alone add to a score, by the distance of query and key", 5.0, 2, 2)
    distance = range(-REACH, REACH + 1)
    sinusoidal, rotary, xl, shaw = axes.flat
    for query, style in ((60, "-"), (600, ":")):
        p_TD = SinusoidalPosition(DIM)(torch.zeros(1, query + REACH + 1, DIM))[0]
        sinusoidal.plot(distance, p_TD[query - REACH :] @ p_TD[query] / DIM**0.5, style, label=f"query at {query}")
        turned_TK = Rotary().place(torch.ones(1, 1, query + REACH + 1, DIM // HEADS))[0, 0]
        scores = turned_TK[query - REACH :] @ turned_TK[query] / (DIM // HEADS) ** 0.5
        rotary.plot(distance, scores, style, label=f"query at {query}")
    sinusoidal.set_title("sinusoidal: p[i] . p[j]")
    rotary.set_title("rotary: equal vectors, turned")
    for axis, row in ((xl, "transformer-xl"), (shaw, "shaw")):
        parts = material.model(row)
        for score_R in trained_scores(parts, material.batch(parts, LONG)):
            axis.plot(distance, score_R, linewidth=1.3)
        axis.set_title(f"{parts.config.model.encoder.position}, trained: four heads of the first layer")
    for axis in axes.flat:
        axis.axvline(0, color=GREY, linewidth=0.6)
        axis.set(xlabel="key's frame less query's", ylabel="score")
    sinusoidal.legend()
    rotary.legend()
    return picture


def trained_scores(parts: ModelFolder, batch: Batch) -> Tensor:
    """Return what distance adds to the scores of the first layer's queries, for each head, (H, 2 REACH + 1).

    It is measured with keys of zeros: the mean over a clip's frames, relative to the score at distance 0.
    """
    layer: Any = parts.model.encoder.layers[0]
    form, given = layer.attention.form, list[Tensor]()
    handle = form.register_forward_pre_hook(lambda _, args: given.append(args[1]))
    heard(parts, batch)
    handle.remove()
    nothing_BHTK = torch.zeros_like(given[0])
    _, attention_BHTT = form(explicit, given[0], nothing_BHTK, nothing_BHTK, None)
    score_BHTT = attention_BHTT.log()
    score_BHTT = score_BHTT - score_BHTT.diagonal(dim1=2, dim2=3)[..., None]
    total_HR, count_HR = (by_distance(x)[0].sum(1) for x in (score_BHTT, torch.ones_like(score_BHTT)))
    middle = given[0].shape[2] - 1
    near = slice(middle - REACH, middle + REACH + 1)
    return total_HR[:, near] / count_HR[:, near]


@torch.no_grad()
def scores() -> Figure:
    """Draw how much attention a key gets as it grows, with dot products and with additive scores."""
    torch.manual_seed(0)
    K, size_S = DIM // HEADS, torch.linspace(0, 8, 60)
    title = "Attention to one of 20 random keys as it grows; a line each for 16 queries"
    picture, axes = figure(title, 2.8, 1, 2, sharey=True)
    forms = {"dot: q . k / sqrt(K)": Form(), "additive: v . tanh(q + k)": Additive(DIM, HEADS)}
    query_X1K, key_XTK = torch.randn(16, 1, K), torch.randn(16, 20, K)
    for axis, (name, form), colour in zip(axes[0], forms.items(), (BLUE, ORANGE), strict=True):
        for q_1K, k_TK in zip(query_X1K, key_XTK, strict=True):
            q_SH1K, k_SHTK = (x.expand(len(size_S), HEADS, -1, -1).clone() for x in (q_1K, k_TK))
            k_SHTK[:, :, 0] *= size_S[:, None, None]
            _, weight_SH1T = form(explicit, q_SH1K, k_SHTK, k_SHTK, None)
            assert weight_SH1T is not None
            axis.plot(size_S, weight_SH1T[:, 0, 0, 0], color=colour, linewidth=1)
        axis.set(title=name, xlabel="length of the key / length of the others")
    axes[0, 0].set_ylabel("attention weight")
    return picture


# ---- windows --------------------------------------------------------------------------------------------------------

T = 96


@torch.no_grad()
def windows() -> Figure:
    """Draw which frames attend to which, and what that saves by the figures in docs/methods.md."""
    picture = Figure(figsize=(WIDTH, 5.6), layout="constrained")
    above, below = picture.subfigures(2, 1, height_ratios=[1, 1])
    above.suptitle("Which frames a frame attends to")
    below.suptitle("What the encoder takes for a recording")
    forms = {
        "all frames": Form(),
        "window: 16 + 16 frames": Window(Form(), 16, 16),
        "chunks of 16 frames, left 1": Chunks(Form(), 16, 1),
    }
    for axis, (name, form) in zip(above.subplots(1, 3, sharey=True), forms.items(), strict=True):
        axis.imshow(attended(form, T) > 0, cmap=SHARES, vmin=0, vmax=1.3, origin="upper")
        axis.set(title=name, xlabel="frame that is attended", xticks=range(0, T, 32), yticks=range(0, T, 32))
    above.axes[0].set_ylabel("frame")
    text = (ROOT / "docs" / "methods.md").read_text(encoding="utf-8")
    rows, relative = cost_rows(text), cost_rows(text, ", transformer_xl")
    for axis, (what, at) in zip(below.subplots(1, 2), {"processor time / s": 1, "memory / MB": 2}.items(), strict=True):
        seconds = [row[0] for row in rows]
        for name, place, colour, mark in (("all frames", 0, ORANGE, "o"), ("window 32 + 32", 2, BLUE, "s")):
            axis.plot(seconds, [row[at + place] for row in rows], f"{mark}-", color=colour, label=name)
            told = {"color": colour, "label": f"{name}, transformer_xl", "mfc": "none"}
            axis.plot(seconds, [row[at + place] for row in relative], f"{mark}:", **told)
        axis.set(xscale="log", yscale="log", xlabel="length of the recording / s", ylabel=what)
        axis.set_xticks(seconds, [f"{s:g}" for s in seconds])
        axis.yaxis.set_major_locator(LogLocator(subs=(1, 3)))
        axis.yaxis.set_major_formatter("{x:g}")
        axis.minorticks_off()
        axis.grid(alpha=0.3)
    below.legend(*below.axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=2)
    return picture


def attended(form: Form, T: int) -> Tensor:
    """Return the attention of T frames to each other, (T, T), with equal keys; one-hot values identify the frames."""
    alike_11T1, which_11TT = torch.zeros(1, 1, T, 1), torch.eye(T)[None, None]
    y_11TT, _ = form(explicit, alike_11T1, alike_11T1, which_11TT, torch.zeros(1, 1, 1, T))
    return y_11TT[0, 0]


def cost_rows(text: str, kind: str = "") -> list[list[float]]:
    """Return audio seconds, then seconds and MB of both kinds, by row of a table in docs/methods.md; nan: none."""
    cells = r"\| ([\d.]+|-) \| ([\d,]+) \| ([\d.]+|-) \| ([\d,]+) \|"
    found = re.findall(rf"^\| (\d+) s{kind} {cells}", text, flags=re.MULTILINE)
    return [[float(cell.replace(",", "").replace("-", "nan")) for cell in row] for row in found]


# ---- layers ---------------------------------------------------------------------------------------------------------


def reach() -> Figure:
    """Draw from how far inputs affect a frame's output: its gradient for the frames around it, in one layer each."""
    picture, axes = figure("How much a frame's output depends on the frames around it, one untrained layer", 2.8)
    kinds = {"transformer": BLUE, "conformer": ORANGE, "lstm": GREEN}
    for layer, colour in kinds.items():
        chosen = [f"model.encoder.layer={layer}", "model.encoder.position=sinusoidal"]
        axes[0, 0].plot(range(-REACH, REACH + 1), _gradients(chosen), color=colour, label=layer)
    axes[0, 0].set(yscale="log", xlabel="frame, from the one looked at", ylabel="gradient (for itself: 1)")
    axes[0, 0].legend()
    return picture


def _gradients(chosen: Sequence[str]) -> Tensor:
    """Return the norm of the middle frame's gradient for each input frame, mean of 8 seeds, relative to its own."""
    found = []
    for seed in range(8):
        torch.manual_seed(seed)
        config = read_config(ExperimentConfig, ROOT / "conf" / "prompts" / "en.yaml", chosen)
        layer = build_model(config.features, config.model, 8).eval().encoder.layers[0]
        frames = 2 * REACH + 1
        x_TD = torch.randn(frames, DIM, requires_grad=True)
        y_TD = layer(x_TD, Rows(torch.tensor([frames]), frames), torch.zeros(1, 1, 1, frames))
        (y_TD[REACH] * torch.randn(DIM)).sum().backward()
        assert x_TD.grad is not None
        found.append(x_TD.grad.norm(dim=1))
    total_T = torch.stack(found).mean(0)
    relative_T: Tensor = total_T / total_T[REACH]
    return relative_T


PLAIN = {"scores": scores, "windows": windows, "layers": reach}
OF_SPEECH = {"positions": positions, "norms": norms, "norm-places": norm_places}
