"""Training on errors themselves, over texts that the search finds during training.

Shapes: B batch, N texts per utterance, M = B x N rows, P start tokens, L tokens, V vocabulary.
"""

from __future__ import annotations

from typing import Any, Generic, Protocol, TypeVar

import torch
from torch import Tensor

from asr import losses
from asr.config import MinimumErrorConfig
from asr.decode.sample import sample
from asr.decode.scorers import CTCPrefixScorer, ForbidScorer
from asr.decode.search import Hypothesis, SearchOptions, Weighted, search
from asr.lengths import pad_tokens, within
from asr.tokenizer import Tokenizer
from asr.training.criteria.base import Pass, Per
from asr.training.criteria.errors import Errors
from asr.training.modes import evaluating, without_dropout

Found = list[list[Hypothesis]]


class Scores(Protocol):
    """A score of texts: finds those with the highest scores and computes scores, up to a constant per utterance."""

    tokenizer: Tokenizer

    def best(self, run: Pass, count: int) -> Found:
        """Return the texts of each utterance that a beam of width `count` finds, best first."""
        ...

    def log_probs(self, run: Pass, found: Found) -> Tensor:
        """Return scores (B, N) of texts, with gradient; -inf for missing texts."""
        ...


class Policy:
    """The decoder as a distribution over texts: finds texts and computes their probabilities, both without dropout.

    Start tokens, including the language, are those of the batch; tokens that the search must not produce have
    probability 0.  A text has at most twice the tokens of the reference plus `spare`, and never more than the
    decoder's max_length allows.
    """

    def __init__(self, tokenizer: Tokenizer, max_length: int, spare: int = 8) -> None:
        self.tokenizer, self.max_length, self.spare = tokenizer, max_length, spare

    def best(self, run: Pass, count: int, *beside: Weighted) -> Found:
        """Return the most probable texts of each utterance that a beam of width `count` finds.

        beside: other scorers of the search; their weights and the decoder's add up to 1.
        """
        searched = self._searched(run, *beside)
        options = SearchOptions(beam_size=count, length_penalty=0.0, n_best=count)
        with evaluating(run.model.decoder):
            return search(**searched, options=options)

    def samples(self, run: Pass, count: int) -> Found:
        """Draw `count` texts of each utterance from the decoder's distribution."""
        draws = [run.draws("self_critical", id) for id in run.batch.ids]
        seeds_BN = [[draw.getrandbits(63) for _ in range(count)] for draw in draws]
        searched = self._searched(run)
        with evaluating(run.model.decoder):
            return sample(**searched, options=SearchOptions(), temperature=1.0, seeds_BK=seeds_BN)

    def log_probs(self, run: Pass, found: Found) -> Tensor:
        """Return log-probabilities (B, N) of texts with their end tokens, with gradient; -inf for missing texts."""
        N, P = max(map(len, found)), run.batch.prefix_length
        device = run.memory.states_BTD.device
        rows = [
            [*prefix, *h.tokens, *([] if h.truncated else [self.tokenizer.eos_id])]
            for prefix, texts in zip(self._prefix(run).tolist(), _filled(found), strict=True)
            for h in texts
        ]
        tokens_ML, len_M = (x.to(device) for x in pad_tokens(rows, self.tokenizer.eos_id))
        len_M -= 1  # the last token is only predicted
        with without_dropout(run.model.decoder):
            logits_MLV, _ = run.model.decoder(tokens_ML[:, :-1], run.memory, None, len_M)
        logits_MLV = logits_MLV[:, P - 1 :].float() + self._allowed(P, tokens_ML.shape[1] - P).to(device)
        log_prob_ML = logits_MLV.log_softmax(-1).gather(2, tokens_ML[:, P:, None])[..., 0]
        real_ML = within(len_M - (P - 1), log_prob_ML.shape[1])
        log_prob_BN = log_prob_ML.masked_fill(~real_ML, 0.0).sum(1).view(-1, N)
        return log_prob_BN.masked_fill(~within(torch.tensor([*map(len, found)], device=device), N), -torch.inf)

    def _searched(self, run: Pass, *beside: Weighted) -> dict[str, Any]:
        """Return the arguments that `search` and `sample` have in common."""
        room = self.max_length - run.batch.prefix_length
        caps = [min(room, 2 * length + self.spare) for length in run.batch.text_len_B.tolist()]
        forbid = Weighted("allowed", self._forbid(run.batch.prefix_length), 1.0)
        own = Weighted("attention", run.model.decoder, 1.0 - sum(other.weight for other in beside))
        return {
            "scorers": [own, forbid, *beside],
            "memory": run.memory,
            "prefix_BP": self._prefix(run),
            "eos_id": self.tokenizer.eos_id,
            "max_tokens_B": caps,
        }

    def _prefix(self, run: Pass) -> Tensor:
        return run.batch.tokens_BL[:, : run.batch.prefix_length]

    def _forbid(self, P: int) -> ForbidScorer:
        t = self.tokenizer
        return ForbidScorer(t.vocab_size, t.suppressed_ids, t.suppressed_first_ids, P)

    def _allowed(self, P: int, L: int) -> Tensor:
        """Return log-weights (L, V) that rule out the forbidden tokens of a text."""
        later_V, first_V = self._forbid(P).weight_2V
        return torch.stack([first_V, *[later_V] * (L - 1)])


class JointScores:
    """The decoder and CTC weighed as in joint decoding: (1 - c) log p(text) + c log p_ctc(text), with p of the policy.

    p_ctc sums over all alignments; texts that have none, for want of frames, count as missing.  To CTC, a text that
    reached its length cap is a whole one, too.
    """

    def __init__(self, policy: Policy, ctc_weight: float, blank_id: int) -> None:
        self.policy, self.ctc_weight, self.blank_id = policy, ctc_weight, blank_id
        self.tokenizer = policy.tokenizer

    def best(self, run: Pass, count: int) -> Found:
        """Return the texts of each utterance that a joint beam of width `count` finds, best first."""
        posteriors = run.ctc_BTV.detach(), run.memory.len_B
        ctc = CTCPrefixScorer(lambda _: posteriors, self.blank_id, self.tokenizer.eos_id)
        return self.policy.best(run, count, Weighted("ctc", ctc, self.ctc_weight))

    def log_probs(self, run: Pass, found: Found) -> Tensor:
        """Return joint scores (B, N) of texts, with gradient for decoder and CTC; -inf for missing texts."""
        c = self.ctc_weight
        return (1 - c) * self.policy.log_probs(run, found) + c * self._ctc(run, found)

    def _ctc(self, run: Pass, found: Found) -> Tensor:
        """Return log p_ctc (B, N).

        One text of each utterance at a time, as all at once would need N copies of CTC's posteriors.
        """
        frames, device = run.memory.len_B.tolist(), run.ctc_BTV.device
        columns = []
        for hypotheses in zip(*_filled(found), strict=True):
            texts = [list(h.tokens) for h in hypotheses]
            tokens_BL, len_B = (x.to(device) for x in pad_tokens(texts))
            loss_B = losses.ctc(run.ctc_BTV, run.memory.len_B, tokens_BL, len_B, self.blank_id)
            fits = [losses.ctc_fits(*pair) for pair in zip(frames, texts, strict=True)]
            columns.append((-loss_B).masked_fill(~torch.tensor(fits, device=device), -torch.inf))
        return torch.stack(columns, dim=1)


def _filled(found: Found) -> Found:
    """Return equally many texts of each utterance: the first again in place of missing ones."""
    N = max(map(len, found))
    return [[*texts, *[texts[0]] * (N - len(texts))] for texts in found]


_S = TypeVar("_S", bound=Scores)


class _OnErrors(Generic[_S]):
    """Base of the criteria that train on errors."""

    name: str = "minimum_error"
    per: Per = "utterance"
    attention = False

    def __init__(self, config: MinimumErrorConfig, scores: _S, errors: Errors) -> None:
        self.config, self.scores, self.errors = config, scores, errors

    def share(self, step: int) -> float:
        return self.config.weight if step >= self.config.from_step else 0.0

    def _errors(self, run: Pass, found: Found) -> Tensor:
        """Return the errors (B, N) of texts, 0 for missing texts."""
        N, tokenizer = max(map(len, found)), self.scores.tokenizer
        rows = []
        for reference, language, texts in zip(run.batch.texts, run.batch.text_languages, found, strict=True):
            counts = self.errors(reference, language, [tokenizer.decode(list(h.tokens)) for h in texts])
            rows.append([*counts, *[0.0] * (N - len(counts))])
        return torch.tensor(rows, device=run.memory.states_BTD.device)


class ExpectedErrors(_OnErrors[Scores]):
    """Expected errors of the n best texts (minimum-WER training, Prabhavalkar et al. 2018)."""

    def __call__(self, run: Pass) -> Tensor:
        found = self.scores.best(run, self.config.n_best)
        return losses.expected_errors(self.scores.log_probs(run, found), self._errors(run, found))


class SelfCritical(_OnErrors[Policy]):
    """Self-critical training (Rennie et al. 2017): favours samples that have fewer errors than the greedy text."""

    def __call__(self, run: Pass) -> Tensor:
        found, greedy = self.scores.samples(run, self.config.n_best), self.scores.best(run, 1)
        baseline_B = self._errors(run, greedy)[:, 0]
        return losses.policy_gradient(self.scores.log_probs(run, found), self._errors(run, found), baseline_B)
