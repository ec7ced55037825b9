"""Pictures of the search: the pointer into a phrase list, language models, sampled texts.

Shapes: B clips, L tokens, N places in a text, V vocabulary, U tokens of a list.
"""

from __future__ import annotations

import math
import tempfile
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor

from asr.checkpoint import ModelFolder, load_model_folder
from asr.data.batch import Batch
from asr.decode.ngram import TokenNGrams
from asr.lm.train import train_ngrams
from asr.model.copying import Copying
from asr.phrases.lists import Phrase
from asr.phrases.spelling import Speller
from asr.phrases.tree import PhraseTree
from asr.recognizer import Recognizer
from asr.scoring import score
from asr.tokenizer import Tokenizer
from docs.pictures.material import CLIP, Material, heard
from docs.pictures.style import BLUE, GREY, ORANGE, PALE, PURPLE, SHARES, figure, letters, shown

# ---- the pointer ----------------------------------------------------------------------------------------------------

PHRASES = ("Bluetooth Mobile", "Unistim", "DAHDI", "Bluebell", "United", "Mobility")
CLIPS = ("en/spy-mobile", "en/spy-unistim", "en/spy-dahdi")


class Pointed(NamedTuple):
    """What the pointer does at each place of a text.

    copied_NU: probabilities of copying, nan where a token is not valid.  alone_N, mixed_N: the probability of the next
    token, by the decoder alone and with the pointer.
    """

    copied_NU: Tensor
    alone_N: Tensor
    mixed_N: Tensor


def copying(material: Material) -> Figure:
    """Draw which tokens of a phrase tree may come next along a text, and how probable the pointer makes them."""
    parts = load_model_folder(material.pointer)
    pieces, speller = parts.tokenizer.pieces, Speller(parts.tokenizer)
    tree = PhraseTree.of([speller.automaton(map(Phrase, PHRASES)).paths()])
    batches = [material.batch(parts, id) for id in CLIPS]
    pointed = Pointed(*map(torch.cat, zip(*(point(parts, batch, tree) for batch in batches), strict=True)))
    next_N = [piece for batch in batches for piece in (*pieces(batch.text_BL[0, :-1].tolist()), "end")]
    rows = list(dict.fromkeys(token for phrase in PHRASES for token in speller.written(phrase)[0]))
    picture, axes = figure(f"Pointer into the list {', '.join(PHRASES)}", 5.6, 2, sharex=True, height_ratios=[2.4, 1])
    above, below = axes[:, 0]
    copied_UN = pointed.copied_NU[:, torch.searchsorted(tree.token_U, torch.tensor(rows))].T
    colours = above.imshow(copied_UN, cmap=SHARES, vmin=0, vmax=1, aspect="auto")
    above.set_facecolor(PALE)
    letters(above, pieces(rows), 9)
    above.set_ylabel("token of the list (grey: not valid)")
    picture.colorbar(colours, ax=above, label="probability of copying", pad=0.01)
    at = np.arange(len(next_N))
    below.bar(at - 0.2, pointed.alone_N, 0.4, color=ORANGE, label="decoder alone")
    below.bar(at + 0.2, pointed.mixed_N, 0.4, color=BLUE, label="with the pointer")
    below.set(ylabel="probability", ylim=(0, 1.05), xlabel="token that comes next, of three clips")
    below.set_xticks(at, [shown(piece) for piece in next_N], fontsize=8)
    for end in np.flatnonzero(np.array(next_N[:-1]) == "end"):
        above.axvline(end + 0.5, color="black", linewidth=1)
        below.axvline(end + 0.5, color="black", linewidth=1)
    picture.legend(*below.get_legend_handles_labels(), loc="outside lower center", ncols=2)
    return picture


@torch.no_grad()
def point(parts: ModelFolder, batch: Batch, tree: PhraseTree) -> Pointed:
    """Score the text of a batch of one clip with and without the pointer into a phrase tree."""
    decoder, kept = parts.model.decoder, list[tuple[Tensor, Tensor]]()
    decoder.pointer.register_forward_hook(lambda _, given, result: kept.append((given[3], result[0])))
    _, memory = heard(parts, batch)
    begin = batch.prefix_length - 1
    target_N1 = batch.targets_BL[0, begin:, None]
    alone_NV = decoder(batch.inputs_BL, memory)[0][0, begin:].float().log_softmax(-1)
    mixed_NV = Copying(decoder, decoder.pointer, tree, batch.prefix_length)(batch.inputs_BL, memory)[0][0, begin:]
    ((ahead_NW, copy_NU),) = kept
    copied_NU = copy_NU.exp().masked_fill(~ahead_NW[:, :-1], math.nan)
    return Pointed(copied_NU, *(x_NV.gather(1, target_N1)[:, 0].exp() for x_NV in (alone_NV, mixed_NV)))


# ---- language models ------------------------------------------------------------------------------------------------


def language_models(material: Material) -> Figure:
    """Draw how probable each character of an unseen text is by n-grams of several lengths."""
    parts = material.model("base")
    text = material.batch(parts, "en/vm-reenterpassword").texts[0]
    folder, train = material.folder("base"), material.experiment.data.train
    assert isinstance(train, Path)  # not a URL
    picture, axes = figure("How well n-grams of the training texts foresee the characters of a dev text", 2.9)
    characters = [*text, "\nend"]
    for order, colour, mark in ((2, ORANGE, "s"), (4, PURPLE, "."), (8, BLUE, "o")):
        with tempfile.TemporaryDirectory() as scratch:
            arpa = Path(scratch) / "lm.arpa"
            train_ngrams([train], folder, order, arpa)
            prob_L = foreseen(arpa, parts.tokenizer, text)
        label = f"{order}-grams, perplexity {2 ** -np.mean(np.log2(prob_L)):.1f}"
        axes[0, 0].plot(prob_L, mark, ls="-", color=colour, label=label, linewidth=1, markersize=4)
    axes[0, 0].set_xticks(range(len(characters)), [shown(c) for c in characters], fontsize=7)
    axes[0, 0].set(xlabel="character", ylabel="probability", yscale="log")
    picture.legend(loc="outside lower center", ncols=3)
    return picture


def foreseen(arpa: Path, tokenizer: Tokenizer, text: str) -> list[float]:
    """Return the probability of each token of a text and of its end, given the tokens before it."""
    scorer, found = TokenNGrams(arpa, tokenizer), list[float]()
    fed_11, state = torch.tensor([tokenizer.prefix()]), scorer.start(None)
    for token in [*tokenizer.encode(text), tokenizer.eos_id]:
        log_prob_1V, state = scorer.step(fed_11, state)
        found.append(float(log_prob_1V[0, token].exp()))
        fed_11 = torch.tensor([[token]])
    return found


# ---- sampled texts --------------------------------------------------------------------------------------------------

DRAWS = 20


def drawing(material: Material) -> Figure:
    """Draw how texts vary when sampled at several temperatures, from all tokens and from the most probable ones."""
    parts = material.model("base")
    batch = material.batch(parts, CLIP)
    title = f"The different texts among {DRAWS} that are drawn of one clip"
    picture, axes = figure(title, 4.2, 2, sharex=True, height_ratios=[3, 1])
    temperatures = (0.2, 0.4, 0.6, 0.8, 1.0)
    rated, counted = axes[:, 0]
    for top_p, shift, colour in ((1.0, -0.02, ORANGE), (0.9, 0.02, BLUE)):
        medians, counts = list[float](), list[int]()
        for temperature in temperatures:
            options = {"temperature": temperature, "top_p": top_p, "n_best": DRAWS, "beam_size": 1}
            rates = drawn(parts, batch, options)
            rated.plot([temperature + shift] * len(rates), rates, "o", color=colour, alpha=0.4, markersize=5)
            medians.append(float(np.median(rates)))
            counts.append(len(rates))
        at = [temperature + shift for temperature in temperatures]
        rated.plot(at, medians, color=colour, label=f"median, top_p {top_p:g}")
        counted.bar(at, counts, 0.036, color=colour)
    (greedy,) = drawn(parts, batch, {"beam_size": 1})
    rated.axhline(greedy, color=GREY, linewidth=1, label="greedy")
    rated.set_ylabel("character errors / %")
    rated.legend(loc="upper left")
    counted.set(xlabel="temperature", ylabel="different\ntexts", xticks=temperatures)
    return picture


def drawn(parts: ModelFolder, batch: Batch, options: dict[str, float]) -> list[float]:
    """Decode a clip and return the character error rates of its hypotheses, in percent."""
    recognizer = Recognizer(parts, parts.config.decode.model_copy(update=options))
    (found,) = recognizer.decode(batch.audio_BN, batch.audio_len_B)
    texts = [parts.tokenizer.decode(hypothesis.tokens) for hypothesis in found]
    return [100 * score(batch.texts, [text], metrics="cer").rates["cer"].rate for text in texts]


OF_SPEECH = {"copying": copying, "language-models": language_models, "drawing": drawing}
