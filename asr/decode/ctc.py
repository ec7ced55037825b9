"""Search with CTC alone: the best path, and prefix beam search.

Shapes: B utterances, K beam, T frames, V vocabulary.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from asr.decode.prefixes import History, Names, Step, keep_best, merge
from asr.decode.search import Hypothesis, SearchOptions
from asr.lengths import within


class Path(NamedTuple):
    """The most probable path of an utterance, with repeats and blanks removed.

    log_probs: of each token, the highest over its frames.  log_prob: of the whole path.
    """

    tokens: tuple[int, ...]
    log_probs: tuple[float, ...]
    log_prob: float


def best_paths(log_prob_BTV: Tensor, len_B: Tensor, blank_id: int) -> list[Path]:
    """Best path decoding (Graves et al. 2006): take the most probable token of every frame."""
    value_BT, token_BT = log_prob_BTV.max(-1)
    return [
        _collapsed(tokens[:length], values[:length], blank_id)
        for tokens, values, length in zip(token_BT.tolist(), value_BT.tolist(), len_B.tolist(), strict=True)
    ]


def _collapsed(tokens: Sequence[int], values: Sequence[float], blank_id: int) -> Path:
    runs = itertools.groupby(zip(tokens, values, strict=True), key=lambda pair: pair[0])
    best = [(token, max(value for _, value in run)) for token, run in runs]
    said = [(token, value) for token, value in best if token != blank_id]
    return Path(tuple(token for token, _ in said), tuple(value for _, value in said), sum(values))


@torch.inference_mode()
def prefix_search(log_prob_BTV: Tensor, len_B: Tensor, blank_id: int, options: SearchOptions) -> list[list[Hypothesis]]:
    """Prefix beam search (Hannun et al. 2014): find the texts most probable over all their paths, best first.

    All utterances advance one frame at a time.  Equal prefixes are merged: the paths that extend a shorter prefix to
    one that is already in the beam are added to it.  Apart from pruning, a text's score is exact: its log-probability
    plus the length bonus for each token.
    """
    B, T, _ = log_prob_BTV.shape
    K, history = options.beam_size, History()
    log_prob_BTV = _padded(log_prob_BTV.double(), len_B, blank_id)
    names = Names.empty(B, K, log_prob_BTV.device)
    ends = _Ends(*(log_prob_BTV.new_full((B, K), -math.inf) for _ in range(2)))
    ends.blank_BK[:, 0] = 0.0  # the empty prefix; the other places are still vacant
    for t in range(T):
        ends, step = _advance(ends, names, log_prob_BTV[:, t], blank_id, options.length_bonus)
        names = names.follow(step)
        history.steps.append(step)
    found = []
    for b, totals in enumerate(ends.total_BK.tolist()):
        texts = history.texts(b, [(T, k) for k in range(K)])
        hypotheses = list(_hypotheses(totals, texts, options.length_bonus))
        found.append(sorted(hypotheses, key=lambda h: -h.score)[: options.n_best])
    return found


class _Ends(NamedTuple):
    """Log-probabilities (B, K) of all paths to each prefix that end in blank, and of those ending in its last token."""

    blank_BK: Tensor
    token_BK: Tensor

    @property
    def total_BK(self) -> Tensor:
        return torch.logaddexp(self.blank_BK, self.token_BK)


def _padded(log_prob_BTV: Tensor, len_B: Tensor, blank_id: int) -> Tensor:
    """Make every utterance continue with blanks of probability 1 after its end, which changes no score."""
    padding_BT = ~within(len_B, log_prob_BTV.shape[1])
    log_prob_BTV = log_prob_BTV.masked_fill(padding_BT[..., None], -math.inf)
    log_prob_BTV[..., blank_id].masked_fill_(padding_BT, 0.0)
    return log_prob_BTV


def _advance(ends: _Ends, names: Names, log_prob_BV: Tensor, blank_id: int, bonus: float) -> tuple[_Ends, Step]:
    """Return the best prefixes after one more frame."""
    total_BK, some_BK = ends.total_BK, names.last_BK >= 0
    last_BK = names.last_BK.clamp(min=0)
    again_BK = log_prob_BV.gather(1, last_BK).masked_fill(~some_BK, -math.inf)
    longer_BKV = total_BK[..., None] + log_prob_BV[:, None]
    # A repeated token is a new one only after a blank; without a blank it prolongs the last token.
    twice_BK1 = torch.where(some_BK, ends.blank_BK + again_BK, longer_BKV.gather(2, last_BK[..., None])[..., 0])
    longer_BKV.scatter_(2, last_BK[..., None], twice_BK1[..., None])
    longer_BKV[..., blank_id] = -math.inf
    into_BK, longer_BKV = merge(longer_BKV, names, total_BK.isfinite())
    blank_BK = total_BK + log_prob_BV[:, blank_id, None]
    token_BK = torch.logaddexp(ends.token_BK + again_BK, into_BK)
    step = keep_best(torch.logaddexp(blank_BK, token_BK), longer_BKV, names, bonus)
    return _Ends(
        torch.where(step.stays_BK, blank_BK.gather(1, step.from_BK), -math.inf),
        torch.where(step.stays_BK, token_BK.gather(1, step.from_BK), step.score_BK),
    ), step


def _hypotheses(totals: Sequence[float], texts: Sequence[tuple[int, ...]], bonus: float) -> Iterator[Hypothesis]:
    for total, text in zip(totals, texts, strict=True):
        if math.isfinite(total):
            yield Hypothesis(text, total + bonus * len(text), {"ctc": total})
