"""Pictures of decoders: what they predict for a clip, frame by frame and round by round.

Shapes: B clips, T frames, L tokens, U = L + 1 places between them, V vocabulary.
"""

from __future__ import annotations

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle
from torch import Tensor

from asr import losses
from asr.checkpoint import ModelFolder
from asr.data.batch import Batch
from asr.decode.ctc import best_paths
from asr.errors import DataError
from asr.frames import TransducerAligner
from asr.recognizer import Recognizer
from asr.recognizer.searchers import MaskCTCSearcher, MaskPredictSearcher
from docs.pictures.material import CLIP, Material, Watched, draw_features, frame_s, heard
from docs.pictures.style import ORANGE, PALE, SHARES, SKY, figure, letters, shown

# ---- CTC ------------------------------------------------------------------------------------------------------------


@torch.no_grad()
def ctc(material: Material) -> Figure:
    """Draw a clip's features, and below them the CTC posteriors of each frame."""
    parts = material.model("base")
    assert parts.model.ctc is not None
    blank, tokenizer = parts.tokenizer.blank_id, parts.tokenizer
    batch = material.batch(parts, CLIP)
    features, memory = heard(parts, batch)
    log_prob_BTV = parts.model.ctc(memory)
    (path,) = best_paths(log_prob_BTV, memory.len_B, blank)
    picture, axes = figure(
        f"CTC: said '{batch.texts[0]}', best path '{tokenizer.decode(path.tokens)}'",
        5.6, 2, 1, sharex=True, height_ratios=[1, 2.2],
    )  # fmt: skip
    draw_features(axes[0, 0], features, parts)
    prob_TV = log_prob_BTV[0].exp()
    best_T = prob_TV.argmax(1).tolist()
    tokens = sorted({*best_T, *(prob_TV.amax(0) > 0.3).nonzero()[:, 0].tolist()})
    extent = (0, len(prob_TV) * frame_s(parts), len(tokens) - 0.5, -0.5)
    image = axes[1, 0].imshow(prob_TV[:, tokens].T, cmap=SHARES, vmin=0, vmax=1, aspect="auto", extent=extent)
    letters(axes[1, 0], ["blank" if v == blank else tokenizer.pieces([v])[0] for v in tokens], 8)
    axes[1, 0].set(xlabel="seconds", ylabel="token (dots: best path)")
    dots = [((t + 0.5) * frame_s(parts), tokens.index(v)) for t, v in enumerate(best_T)]
    axes[1, 0].plot(*zip(*dots, strict=True), ".", color=ORANGE)
    picture.colorbar(image, ax=axes[1, 0], label="probability", pad=0.01)
    return picture


# ---- transducer -----------------------------------------------------------------------------------------------------


@torch.no_grad()
def transducer(material: Material) -> Figure:
    """Draw where the alignments of a clip and its text run through the lattice of frames and tokens."""
    parts = material.model("transducer")
    batch = material.batch(parts, CLIP)
    features, memory = heard(parts, batch)
    text_L = batch.text_BL[0, :-1]
    logits_1TUV = parts.model.decoder(batch.inputs_BL, batch.prefix_length, memory.states_BTD)
    through_TU = passing(logits_1TUV, text_L, parts.tokenizer.blank_id)
    aligner = TransducerAligner(parts.model.decoder, parts.tokenizer.blank_id)
    (best,) = aligner(memory, [text_L.tolist()], batch.tokens_BL[:, : batch.prefix_length])
    if best is None:
        raise DataError(f"{CLIP}: its text cannot be aligned")
    ratios = [1, 2.6]
    picture, axes = figure("Transducer: alignments of a clip and its text", 5.6, 2, sharex=True, height_ratios=ratios)
    draw_features(axes[0, 0], features, parts)
    frame, places = frame_s(parts), through_TU.shape[1]
    extent = (0, len(through_TU) * frame, places - 0.5, -0.5)
    image = axes[1, 0].imshow(through_TU.T, cmap=SHARES, vmin=0, vmax=1, aspect="auto", extent=extent)
    at_L = [(t + 0.5) * frame for t, _ in best.frames]
    way = [0, *at_L, extent[1]], [*range(places), places - 1]
    axes[1, 0].step(*way, where="post", color=ORANGE, linewidth=1.5, label="best path")
    axes[1, 0].legend()
    letters(axes[1, 0], ["start", *parts.tokenizer.pieces(text_L.tolist())])
    axes[1, 0].set(xlabel="seconds", ylabel="after token")
    picture.colorbar(image, ax=axes[1, 0], label="probability of passing here", pad=0.01)
    return picture


@torch.enable_grad()
def passing(logits_1TUV: Tensor, text_L: Tensor, blank: int) -> Tensor:
    """Return the probability that an alignment of a text passes a frame and a place, (T, U), from the loss's gradient.

    An additional token that has half of the probability everywhere and never occurs leaves the shares of alignments
    unchanged, and the gradient of its logit is half of the probability of passing.
    """
    half_1TU1 = logits_1TUV.logsumexp(-1, keepdim=True)
    both_1TUV = torch.cat([logits_1TUV, half_1TU1], dim=-1).detach().requires_grad_()
    T, L = logits_1TUV.shape[1], len(text_L)
    losses.transducer(both_1TUV, torch.tensor([T]), text_L[None], torch.tensor([L]), blank).sum().backward()
    assert both_1TUV.grad is not None
    return 2 * both_1TUV.grad[0, :, :, -1]


# ---- masked decoders ------------------------------------------------------------------------------------------------


def filling_in(material: Material) -> Figure:
    """Draw the texts of mask-predict and of Mask-CTC round by round."""
    picture, axes = figure("Texts that are filled in, round by round", 5.4, 2, sharex=True)
    for axis, row, title in (
        (axes[0, 0], "mask-predict", "mask-predict, iterations 5"),
        (axes[1, 0], "mask-ctc", "Mask-CTC, iterations 5, threshold 0.5"),
    ):
        parts = material.model(row)
        batch = material.batch(parts, CLIP)
        _grid(axis, parts, rounds_of(parts, batch))
        axis.set_title(f"{title} (said: {batch.texts[0]})", loc="left")
        axis.set_ylabel("goes into round")
    axes[1, 0].set_xlabel("place in the text")
    names = {"masked": PALE, "filled in by the round before": ORANGE, "stands": SKY}
    keys = [Patch(color=colour, label=name) for name, colour in names.items()]
    picture.legend(handles=keys, loc="outside lower center", ncols=3)
    return picture


@torch.no_grad()
def rounds_of(parts: ModelFolder, batch: Batch) -> list[list[int]]:
    """Return the tokens that the masked decoder is given in each round, then the final text."""
    options: dict[str, float] = {"iterations": 5, "beam_size": 1}
    if parts.config.model.decoder.kind == "mask_ctc":
        options["threshold"] = 0.5
    rounds = list[list[int]]()
    recognizer = Recognizer(parts, parts.config.decode.model_copy(update=options))
    searcher = recognizer.decoder.searcher
    assert isinstance(searcher, MaskPredictSearcher | MaskCTCSearcher)
    P = batch.prefix_length
    searcher.decoder = Watched(searcher.decoder, "fill", lambda given, _: rounds.append(given[0][0, P:].tolist()))
    ((best,),) = recognizer.decode(batch.audio_BN, batch.audio_len_B)
    return [*rounds, list(best.tokens)]


def _grid(axis: Axes, parts: ModelFolder, rounds: list[list[int]]) -> None:
    """Draw one row per round: masked tokens, those filled in since the row above, and those that were there."""
    mask, before = parts.tokenizer.blank_id, [parts.tokenizer.blank_id] * len(rounds[0])
    for y, tokens in enumerate(rounds):
        for x, token in enumerate(tokens):
            colour = PALE if token == mask else ORANGE if before[x] == mask and y else SKY
            axis.add_patch(Rectangle((x - 0.5, y - 0.5), 1, 1, facecolor=colour, edgecolor="white", alpha=0.8))
            piece = "" if token == mask else shown(parts.tokenizer.pieces([token])[0])
            axis.text(x, y, piece, ha="center", va="center", fontsize=9)
        before = tokens
    axis.set_xlim(right=max(axis.get_xlim()[1], len(rounds[0]) - 0.4), left=-0.6)
    axis.set_ylim(len(rounds) - 0.4, -0.6)
    axis.set_yticks(range(len(rounds)), [*map(str, range(1, len(rounds))), "text"])
    axis.tick_params(length=0)
    axis.spines[:].set_visible(False)
    axis.set_xticks([])


OF_SPEECH = {"ctc": ctc, "transducer": transducer, "filling-in": filling_in}
