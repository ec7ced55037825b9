"""Decoder input in training other than the target: noise, or the decoder's own predictions.

Start tokens never change.  The draws of an utterance are independent of the rest of its batch.
Shapes: B batch, L input tokens, V vocabulary, X text tokens.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from asr.config import ScheduledSamplingConfig
from asr.tokenizer import Tokenizer
from asr.training.criteria.base import Feed, Pass
from asr.training.modes import evaluating


class TokenNoise:
    """Replace a share of the input tokens by text tokens drawn uniformly (unigram noise, Xie et al. 2017).

    It keeps the decoder from relying on its past alone.  The word dropout of Bowman et al. 2016 would need a
    placeholder token, which the vocabularies here lack; besides, wrong tokens are what a decoder meets in search.
    """

    def __init__(self, share: float, text_X: Tensor, feed: Feed) -> None:
        self.share, self.text_X, self.feed = share, text_X, feed

    def __call__(self, run: Pass) -> Tensor:
        inputs_BL = self.feed(run)
        draw_BL, which_BL = _uniforms(run, "token_noise")
        noise_BL = self.text_X[(which_BL * len(self.text_X)).long()].to(inputs_BL.device)
        return torch.where((draw_BL < self.share).to(inputs_BL.device), noise_BL, inputs_BL)


class ScheduledSampling:
    """Replace a share of the input tokens by the decoder's own predictions, made in a first pass.

    The two passes are those of Mihaylova and Martins 2019, which keep a Transformer parallel, with the schedules of
    Bengio et al. 2015.  The first pass is without gradient and dropout and predicts only text tokens, since an end
    token is never an input.
    """

    def __init__(self, config: ScheduledSamplingConfig, text_X: Tensor, feed: Feed) -> None:
        self.config, self.text_X, self.feed = config, text_X, feed
        self.choose = {"best": _best, "sample": _sampled}[config.choose]
        self.rise: Callable[[int], float] = {
            "constant": lambda step: 1.0,
            "linear": lambda step: min(1.0, step / config.steps),
            "exponential": lambda step: 1 - math.exp(-step / config.steps),
            "inverse_sigmoid": lambda step: 1 - config.steps / (config.steps + _exp(step / config.steps)),
        }[config.schedule]

    def share(self, step: int | None) -> float:
        """Return the share of predictions at a step, the highest one for None."""
        if step is None:
            return self.config.share
        after = step - self.config.from_step
        return self.config.share * self.rise(after) if after >= 0 else 0.0

    def __call__(self, run: Pass) -> Tensor:
        inputs_BL, share = self.feed(run), self.share(run.step)
        if share == 0:
            return inputs_BL
        memory = run.memory  # computed outside `evaluating`, because it needs its gradient
        with evaluating(run.model.decoder):
            logits_BLV, _ = run.decoder(inputs_BL, memory, None, run.batch.target_len_B)
        draw_BL, which_BL = (x.to(inputs_BL.device) for x in _uniforms(run, "scheduled_sampling"))
        text_X = self.text_X.to(inputs_BL.device)
        said_BL = text_X[self.choose(logits_BLV[..., text_X], which_BL.roll(-1, 1))].roll(1, 1)
        return torch.where(draw_BL < share, said_BL, inputs_BL)


def text_tokens(tokenizer: Tokenizer) -> Tensor:
    """Return the text tokens (X,): those that are not empty and that the search may produce."""
    never = {tokenizer.eos_id, tokenizer.blank_id, *tokenizer.suppressed_ids}
    candidates = (i for i in range(tokenizer.vocab_size) if i not in never)
    return torch.tensor([i for i in candidates if tokenizer.pieces([i])[0] or tokenizer.decode([i])])


def _uniforms(run: Pass, purpose: str) -> tuple[Tensor, Tensor]:
    """Draw two numbers from [0, 1) per input token, (B, L) on the CPU; the first is 1 for start tokens and padding."""
    B, L = run.batch.inputs_BL.shape
    draws_2BL = torch.zeros(2, B, L, dtype=torch.double)
    draws_2BL[0] = 1.0
    for b, (id, length) in enumerate(zip(run.batch.ids, run.batch.target_len_B.tolist(), strict=True)):
        generator = torch.Generator().manual_seed(run.draws(purpose, id).getrandbits(63))
        draws_2BL[:, b, :length] = torch.rand(length, 2, generator=generator, dtype=torch.double).T
    draws_2BL[0, :, : run.batch.prefix_length] = 1.0
    return draws_2BL[0], draws_2BL[1]


def _best(logits_BLX: Tensor, draw_BL: Tensor) -> Tensor:
    return logits_BLX.argmax(-1)


def _sampled(logits_BLX: Tensor, draw_BL: Tensor) -> Tensor:
    """Sample by inverting the cumulative distribution at the draws."""
    reach_BLX = logits_BLX.double().softmax(-1).cumsum(-1)
    mark_BL1 = draw_BL[..., None] * reach_BLX[..., -1:]
    return torch.searchsorted(reach_BLX, mark_BL1, right=True)[..., 0].clamp(max=logits_BLX.shape[-1] - 1)


def _exp(x: float) -> float:
    return math.exp(min(x, 700.0))  # beyond that it overflows, where the share is 1 anyway
