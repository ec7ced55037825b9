"""Pictures of what goes into a model: features, and the units of a text.

Shapes: B clips, N samples, T frames, F mel bins, D width of the encoder.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from itertools import accumulate

import numpy as np
import torch
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from asr.data.cuts import read_cuts
from asr.data.examples import target_text
from asr.features import NoNormalization
from asr.tokenizer import CharacterTokenizer, Tokenizer
from asr.tokenizer.trained import SentencePieceTokenizer
from docs.pictures.material import CLIP, LEVELS, LONG, Material
from docs.pictures.style import BLUE, FEATURES, GREEN, ORANGE, SKY, figure, shown

# ---- features -------------------------------------------------------------------------------------------------------


@torch.no_grad()
def front_end(material: Material) -> Figure:
    """A clip on its way into the encoder: samples, log-mel energies, normalised ones, and the encoder's frames."""
    parts = material.model("no-dropout")
    batch, front = material.batch(parts, CLIP), parts.model.front_end
    normalised = front(batch.audio_BN, batch.audio_len_B)
    front.normalization = NoNormalization()
    energies = front(batch.audio_BN, batch.audio_len_B)
    frames_BTD = parts.model.encoder.subsampling(normalised.x_BTF, normalised.len_B)
    seconds = batch.audio_BN.shape[1] / front.sample_rate_hz
    picture, axes = figure("A clip on its way into the encoder", 4.2, 2, 2, sharex=True)
    axes[0, 0].plot(np.linspace(0, seconds, batch.audio_BN.shape[1]), batch.audio_BN[0], color=BLUE, linewidth=0.5)
    axes[0, 0].set(title=f"samples, {front.sample_rate_hz:,} a second", ylabel="amplitude")
    factor = parts.config.model.encoder.subsampling.factor
    colours = colormaps[FEATURES].resampled(LEVELS)
    for axis, title, x_TX, label in (
        (axes[0, 1], "log_mel, normalization: none", energies.x_BTF[0], "mel bin"),
        (axes[1, 0], "log_mel, normalization: utterance", normalised.x_BTF[0], "mel bin"),
        (axes[1, 1], f"behind conv1d, factor {factor} (trained)", frames_BTD[0], "element"),
    ):
        low, high = (float(x) for x in torch.quantile(x_TX, torch.tensor([0.02, 0.98])))
        extent = (0, seconds, 0, x_TX.shape[1])
        image = axis.imshow(
            x_TX.T,
            origin="lower",
            aspect="auto",
            extent=extent,
            cmap=colours,
            vmin=low,
            vmax=high,
        )
        picture.colorbar(image, ax=axis, label="value", pad=0.01)
        axis.set(title=title, ylabel=label)
    for axis in axes[1]:
        axis.set_xlabel("seconds")
    return picture


# ---- units ----------------------------------------------------------------------------------------------------------

SIZE = 200  # tokens of the vocabularies that are learned


def units(material: Material) -> Figure:
    """How each kind of unit divides a dev text, and how often each unit occurs in the training texts."""
    name = material.experiment.normalizer
    texts = [target_text(cut, name) for cut in read_cuts(material.experiment.data.train)]
    kinds: dict[str, Tokenizer] = {
        "character": CharacterTokenizer.train(texts),
        f"bpe, {SIZE}": SentencePieceTokenizer.train(texts, kind="bpe", vocab_size=SIZE),
        f"unigram, {SIZE}": SentencePieceTokenizer.train(texts, kind="unigram", vocab_size=SIZE),
    }
    (said,) = (target_text(cut, name) for cut in material.cuts(LONG))
    picture, axes = figure("Units learned from the training texts", 4.8, 2, height_ratios=[1, 1.5])
    above, below = axes[:, 0]
    for y, ((kind, tokenizer), colour) in enumerate(zip(kinds.items(), (BLUE, ORANGE, GREEN), strict=True)):
        _boxes(above, y, [piece.replace("\u2581", " ") for piece in tokenizer.pieces(tokenizer.encode(said))])
        counts = Counter(token for text in texts for token in tokenizer.encode(text)).most_common()
        below.plot(range(1, len(counts) + 1), [count for _, count in counts], color=colour, label=kind)
    above.set_yticks(range(len(kinds)), list(kinds))
    above.set(xlabel="character of a dev text", ylabel="kind", xlim=(-0.5, len(said) + 1.5), ylim=(2.6, -0.6))
    above.tick_params(length=0)
    below.set(xscale="log", yscale="log", xlabel="rank of the unit", ylabel=f"occurrences in {len(texts)} texts")
    below.legend()
    return picture


def _boxes(axis: Axes, y: int, pieces: Sequence[str]) -> None:
    """A row of boxes as long as the tokens in them."""
    for end, piece in zip(accumulate(map(len, pieces)), pieces, strict=True):
        left = end - len(piece)
        axis.add_patch(Rectangle((left, y - 0.4), len(piece), 0.8, facecolor=SKY, edgecolor="white", alpha=0.6))
        axis.text(end - len(piece) / 2, y, shown(piece), ha="center", va="center", fontsize=8)


OF_SPEECH = {"front-end": front_end, "units": units}
