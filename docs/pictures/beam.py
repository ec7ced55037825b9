"""Pictures of the beam search: its hypotheses step by step, the length in their scores, and the two parts of a score.

Shapes: B clips, K beam, L tokens, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from asr import losses
from asr.checkpoint import ModelFolder
from asr.data.batch import Batch
from asr.decode.search import Hypothesis, Weighted, search
from asr.recognizer import Recognizer
from asr.recognizer.searchers import search_options
from asr.scoring import score
from docs.pictures.material import CLIP, Material, Watched, heard
from docs.pictures.style import BLUE, GREEN, GREY, ORANGE, PALE, PURPLE, RED, figure, shown

BEAM = 5


class Searched(NamedTuple):
    """What a beam search held.

    parents, tokens: for each step, the place of each hypothesis's parent in the beam before, and its new token, by
    rank.  found: the finished texts, best first.
    """

    parents: list[list[int]]
    tokens: list[list[int]]
    found: list[Hypothesis]


def watched(parts: ModelFolder, batch: Batch, **options: Any) -> Searched:
    """Search for the text of a clip and keep the beam of every step."""
    steps, parents = list[list[int]](), list[list[int]]()
    chosen = parts.config.decode.model_copy(update={"beam_size": BEAM, "n_best": BEAM, **options})
    decoder, P = Recognizer(parts, chosen).decoder, batch.prefix_length
    first, *others = decoder._scorers(P)
    seen = Watched(first.scorer, "step", lambda given, _: steps.append(given[0][:, -1].tolist()))
    seen = Watched(seen, "reorder", lambda given, _: parents.append(given[1].tolist()))
    _, memory = heard(parts, batch)
    scorers = [Weighted(first.name, seen, first.weight), *others]
    caps, settled = decoder._caps(memory, P), search_options(decoder.options)
    (found,) = search(scorers, memory, batch.tokens_BL[:, :P], parts.tokenizer.eos_id, caps, settled)
    return Searched(parents[1:], steps[1:], found)  # the first of each are the start tokens


def beam(material: Material) -> Figure:
    """The hypotheses of a beam, step by step, and which text wins as its length counts more."""
    parts = material.model("no-dropout")
    batch = material.batch(parts, CLIP)
    picture, axes = figure(f"Beam of {BEAM} (said: {batch.texts[0]})", 5.8, 2, height_ratios=[1.3, 1])
    _tree(axes[0, 0], parts, watched(parts, batch))
    _lengths(axes[1, 0], parts, watched(parts, batch, ctc_weight=0.0, length_penalty=0.0).found)
    return picture


def _tree(axis: Axes, parts: ModelFolder, searched: Searched) -> None:
    """A column a step, the most probable hypothesis on top; a line leads to the hypothesis that each continues."""
    best = list(searched.found[0].tokens)
    on_way = [_ancestor(searched, step, best) for step in range(len(searched.tokens))]
    for step, (parents, tokens) in enumerate(zip(searched.parents, searched.tokens, strict=True)):
        for rank, (parent, token) in enumerate(zip(parents, tokens, strict=True)):
            wins = on_way[step] == rank
            if step:
                colour, width = (ORANGE, 2.2) if wins else (PALE, 1.0)
                axis.plot([step - 1, step], [parent, rank], color=colour, linewidth=width, zorder=2 if wins else 1)
            piece = shown(parts.tokenizer.pieces([token])[0])
            box = {"boxstyle": "square,pad=0.15", "facecolor": "white", "edgecolor": ORANGE if wins else GREY}
            axis.text(step, rank, piece, ha="center", va="center", fontsize=7, bbox=box, zorder=3)
    axis.set(xlabel="step of the search", ylabel="rank in the beam")
    axis.set(xlim=(-0.7, len(searched.tokens) - 0.3), ylim=(len(searched.tokens[0]) - 0.5, -0.5))
    axis.set_yticks(range(BEAM), [str(rank + 1) for rank in range(BEAM)])
    axis.set_title(f"each step; the path of the best text, '{parts.tokenizer.decode(best)}', is orange", loc="left")


def _ancestor(searched: Searched, step: int, best: Sequence[int]) -> int | None:
    """The rank at a step of the hypothesis that begins the text, None if there is none."""
    for rank in range(len(searched.tokens[step])):
        place, tokens = rank, list[int]()
        for back in range(step, -1, -1):
            tokens.append(searched.tokens[back][place])
            place = searched.parents[back][place]
        if tokens[::-1] == list(best[: step + 1]):
            return rank
    return None


def _lengths(axis: Axes, parts: ModelFolder, found: Sequence[Hypothesis]) -> None:
    """How far each text's score is from the best one's as a bonus for each token grows."""
    bonus_X = np.linspace(0, 1, 101)
    scores = [h.score + bonus_X * len(h.tokens) for h in found]
    best_X = np.max(scores, axis=0)
    looks = ((ORANGE, "-"), (BLUE, "-"), (GREEN, "--"), (PURPLE, "-"), (RED, "-"))
    for h, score_X, (colour, line) in zip(found, scores, looks, strict=False):
        text = parts.tokenizer.decode(list(h.tokens)).strip()
        short = text if len(text) <= 40 else f"{text[:37]}..."
        axis.plot(bonus_X, score_X - best_X, line, color=colour, label=f"{short} ({len(h.tokens)} tokens)")
    axis.set(xlabel="length_bonus b, with length_penalty 0", ylabel="score less the best")
    axis.set_title("texts that end in the beam of the decoder alone: the longer ones win as b grows", loc="left")
    axis.legend(loc="lower left", fontsize=8)


# ---- two parts of a score -------------------------------------------------------------------------------------------


@torch.no_grad()
def joint_ctc(material: Material) -> Figure:
    """What the decoder and CTC think of the texts that each of them finds, and that both find together."""
    parts = material.model("no-dropout")
    batch = material.batch(parts, CLIP)
    texts = {tuple(batch.text_BL[0, : int(batch.text_len_B[0])].tolist()): "said"}
    for name, weight in (("both", 0.5), ("decoder", 0.0), ("CTC", 0.95)):
        for h in watched(parts, batch, ctc_weight=weight).found[:3]:
            texts.setdefault(h.tokens, name)
    cost_N2 = [costs(parts, batch, list(tokens)) for tokens in texts]
    order = np.argsort([sum(cost) for cost in cost_N2])
    picture, axes = figure("Joint score of a clip's texts: half the decoder's, half CTC's", 3.4)
    axis, names = axes[0, 0], list[str]()
    for y, n in enumerate(order):
        (tokens, finder), (decoder, ctc) = list(texts.items())[n], cost_N2[n]
        text = parts.tokenizer.decode(list(tokens)).strip()
        rate = score(batch.texts, [text], metrics="cer").rates["cer"].rate
        names.append(f"{text}  ({finder}, {100 * rate:.0f} %)")
        axis.barh(y, decoder, color=ORANGE, label=None if y else "decoder: -0.5 log p_att")
        axis.barh(y, ctc, left=decoder, color=BLUE, label=None if y else "CTC: -0.5 log p_ctc")
    axis.set_yticks(range(len(names)), names, fontsize=8)
    axis.invert_yaxis()
    axis.set(xlabel="cost / nats (the shortest bar wins)", ylabel="text (found by, character errors)")
    axis.legend()
    return picture


def costs(parts: ModelFolder, batch: Batch, tokens: list[int]) -> tuple[float, float]:
    """Half of the negative log-probability of a text by the decoder, end token included, and half of that by CTC."""
    assert parts.model.ctc is not None  # the experiment trains it
    _, memory = heard(parts, batch)
    prefix = batch.tokens_BL[0, : batch.prefix_length].tolist()
    given_1L = torch.tensor([[*prefix, *tokens, parts.tokenizer.eos_id]])
    log_prob_1LV = parts.model.decoder(given_1L[:, :-1], memory)[0].float().log_softmax(-1)
    chosen_1L: Tensor = log_prob_1LV.gather(2, given_1L[:, 1:, None])[..., 0]
    len_B = torch.tensor([len(tokens)])
    ctc_B = losses.ctc(parts.model.ctc(memory), memory.len_B, torch.tensor([tokens]), len_B, parts.tokenizer.blank_id)
    return -0.5 * float(chosen_1L[0, len(prefix) - 1 :].sum()), 0.5 * float(ctc_B[0])


OF_SPEECH = {"beam": beam, "joint-ctc": joint_ctc}
