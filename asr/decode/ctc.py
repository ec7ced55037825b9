"""Search with CTC alone: the best path, and prefix beam search.

Shapes: B utterances, K beam, C candidates, T frames, V vocabulary.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from asr.decode.search import Hypothesis, SearchOptions

_FACTOR, _STEP = 6_364_136_223_846_793_005, 1_442_695_040_888_963_407  # of a 64-bit hash


class Path(NamedTuple):
    """The most probable path of an utterance, repeats and blanks left out.

    log_probs: of each token, the highest over its frames.  log_prob: of the whole path.
    """

    tokens: tuple[int, ...]
    log_probs: tuple[float, ...]
    log_prob: float


def best_paths(log_prob_BTV: Tensor, len_B: Tensor, blank_id: int) -> list[Path]:
    """Best path decoding (Graves et al. 2006): the most probable token of every frame."""
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


class _Prefixes(NamedTuple):
    """The prefixes of each beam: the log-probabilities (B, K) of all paths to them that end in blank or in a token.

    hash_BK stands for the whole prefix, last_BK is its last token, -1 for none.
    """

    blank_BK: Tensor
    token_BK: Tensor
    hash_BK: Tensor
    last_BK: Tensor

    @property
    def total_BK(self) -> Tensor:
        return torch.logaddexp(self.blank_BK, self.token_BK)


@torch.inference_mode()
def prefix_search(log_prob_BTV: Tensor, len_B: Tensor, blank_id: int, options: SearchOptions) -> list[list[Hypothesis]]:
    """Prefix beam search (Hannun et al. 2014): the texts of the highest probability over all their paths, best first.

    Of all utterances a frame at a time.  Prefixes that are equal are one: paths that reach a prefix of the beam from a
    shorter one are added to it.  Pruning apart, a text's score is exact.  The score is the log-probability and the
    length bonus for each token.
    """
    B, T, _ = log_prob_BTV.shape
    log_prob_BTV = _padded(log_prob_BTV.double(), len_B, blank_id)
    none_BK = log_prob_BTV.new_full((B, options.beam_size), -math.inf)
    last_BK = torch.full_like(none_BK, -1, dtype=torch.long)
    prefixes = _Prefixes(none_BK.clone(), none_BK, torch.zeros_like(last_BK), last_BK)
    prefixes.blank_BK[:, 0] = 0.0  # the empty prefix; the other places are not taken yet
    back: list[tuple[Tensor, Tensor]] = []
    for t in range(T):
        prefixes, *step = _advance(prefixes, log_prob_BTV[:, t], blank_id)
        back.append((step[0], step[1]))
    return [
        sorted(_hypotheses(totals, texts, options), key=lambda h: -h.score)[: options.n_best]
        for totals, texts in zip(prefixes.total_BK.tolist(), _texts(back, none_BK), strict=True)
    ]


def _padded(log_prob_BTV: Tensor, len_B: Tensor, blank_id: int) -> Tensor:
    """Behind its end an utterance goes on in blanks for free, which changes nothing."""
    padding_BT = torch.arange(log_prob_BTV.shape[1], device=len_B.device) >= len_B[:, None]
    log_prob_BTV = log_prob_BTV.masked_fill(padding_BT[..., None], -math.inf)
    log_prob_BTV[..., blank_id].masked_fill_(padding_BT, 0.0)
    return log_prob_BTV


def _advance(prefixes: _Prefixes, log_prob_BV: Tensor, blank_id: int) -> tuple[_Prefixes, Tensor, Tensor]:
    """The best prefixes after one more frame, the places that they come from, and what each gained, -1 for nothing."""
    blank_BK, token_BK, hash_BK, last_BK = prefixes
    K, V = last_BK.shape[1], log_prob_BV.shape[1]
    total_BK, some_BK = prefixes.total_BK, last_BK >= 0
    last_or_0_BK = last_BK.clamp(min=0)
    again_BK = log_prob_BV.gather(1, last_or_0_BK).masked_fill(~some_BK, -math.inf)
    longer_BKV = total_BK[..., None] + log_prob_BV[:, None]
    # The same token again is a new one only behind a blank; without one it is the last token, said longer.
    twice_BK1 = torch.where(some_BK, blank_BK + again_BK, longer_BKV.gather(2, last_or_0_BK[..., None])[..., 0])
    longer_BKV.scatter_(2, last_or_0_BK[..., None], twice_BK1[..., None])
    longer_BKV[..., blank_id] = -math.inf
    joined_BKK = (
        _extended(hash_BK[:, :, None], last_BK[:, None]) == hash_BK[:, None]
    )  # prefix k and last of j: prefix j
    joined_BKK &= (some_BK & total_BK.isfinite())[:, None]
    column_BKK = last_or_0_BK[:, None].expand(-1, K, -1)
    into_BK = longer_BKV.gather(2, column_BKK).masked_fill(~joined_BKK, -math.inf).logsumexp(1)
    moved_BKV = torch.zeros_like(longer_BKV).scatter_add_(2, column_BKK, joined_BKK.to(longer_BKV.dtype))
    longer_BKV = longer_BKV.masked_fill(moved_BKV > 0, -math.inf)
    stay_blank_BK = total_BK + log_prob_BV[:, blank_id, None]
    stay_token_BK = torch.logaddexp(token_BK + again_BK, into_BK)
    candidates_BC = torch.cat([torch.logaddexp(stay_blank_BK, stay_token_BK), longer_BKV.flatten(1)], dim=1)
    value_BK, at_BK = candidates_BC.topk(K)
    stays_BK = at_BK < K
    from_BK = torch.where(stays_BK, at_BK, (at_BK - K) // V)
    gained_BK = torch.where(stays_BK, -1, (at_BK - K) % V)
    hash_BK, last_BK = hash_BK.gather(1, from_BK), last_BK.gather(1, from_BK)
    chosen = _Prefixes(
        torch.where(stays_BK, stay_blank_BK.gather(1, from_BK), -math.inf),
        torch.where(stays_BK, stay_token_BK.gather(1, from_BK), value_BK),
        torch.where(stays_BK, hash_BK, _extended(hash_BK, gained_BK)),
        torch.where(stays_BK, last_BK, gained_BK),
    )
    return chosen, from_BK, gained_BK


def _extended(hash_X: Tensor, token_X: Tensor) -> Tensor:
    """The hash of a prefix and one more token."""
    return hash_X * _FACTOR + (token_X + 1) * _STEP


def _texts(back: Sequence[tuple[Tensor, Tensor]], like_BK: Tensor) -> Iterator[list[tuple[int, ...]]]:
    """The tokens of every prefix, from where each came and what it gained at each frame."""
    B, K = like_BK.shape
    at_BK = torch.arange(K, device=like_BK.device).expand(B, K)
    gained = []
    for from_BK, gained_BK in reversed(back):
        gained.append(gained_BK.gather(1, at_BK))
        at_BK = from_BK.gather(1, at_BK)
    said = torch.stack(gained[::-1], dim=-1).tolist() if gained else [[[]] * K] * B
    for rows in said:
        yield [tuple(token for token in row if token >= 0) for row in rows]


def _hypotheses(
    totals: Sequence[float], texts: Sequence[tuple[int, ...]], options: SearchOptions
) -> Iterator[Hypothesis]:
    for total, text in zip(totals, texts, strict=True):
        if math.isfinite(total):
            yield Hypothesis(text, total + options.length_bonus * len(text), {"ctc": total})
