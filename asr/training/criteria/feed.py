"""What the decoder is fed in training in place of the target: noise, or what it would have said itself.

Start tokens never change.  Every draw is an utterance's own, whatever it shares a batch with.
Shapes: B batch, L input tokens, V vocabulary, X tokens of which texts are made.
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
    """A share of the input tokens gives way to random ones, all text tokens alike (the noise of Xie et al. 2017).

    The decoder cannot lean on its past alone.  The vocabularies here have no token that stands for a gap, as the word
    dropout of Bowman et al. 2016 needs; a wrong token is also what a decoder meets in search.
    """

    def __init__(self, share: float, text_X: Tensor, feed: Feed) -> None:
        self.share, self.text_X, self.feed = share, text_X, feed

    def __call__(self, run: Pass) -> Tensor:
        inputs_BL = self.feed(run)
        draw_BL, which_BL = _uniforms(run, "token_noise")
        noise_BL = self.text_X[(which_BL * len(self.text_X)).long()].to(inputs_BL.device)
        return torch.where((draw_BL < self.share).to(inputs_BL.device), noise_BL, inputs_BL)


class ScheduledSampling:
    """A share of the input tokens gives way to the decoder's own predictions, found by a pass before the trained one.

    The two passes of Mihaylova and Martins 2019, which keep a Transformer parallel, with the schedules of Bengio et al.
    2015.  The first pass is without gradient and dropout; it says text tokens only, for an end is no input.
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
        """The share of predictions at a step; the highest one if that is None."""
        if step is None:
            return self.config.share
        after = step - self.config.from_step
        return self.config.share * self.rise(after) if after >= 0 else 0.0

    def __call__(self, run: Pass) -> Tensor:
        inputs_BL, share = self.feed(run), self.share(run.step)
        if share == 0:
            return inputs_BL
        memory = run.memory  # outside, for it keeps its gradient
        with evaluating(run.model.decoder):
            logits_BLV, _ = run.decoder(inputs_BL, memory, None, run.batch.target_len_B)
        draw_BL, which_BL = (x.to(inputs_BL.device) for x in _uniforms(run, "scheduled_sampling"))
        text_X = self.text_X.to(inputs_BL.device)
        said_BL = text_X[self.choose(logits_BLV[..., text_X], which_BL.roll(-1, 1))].roll(1, 1)
        return torch.where(draw_BL < share, said_BL, inputs_BL)


def text_tokens(tokenizer: Tokenizer) -> Tensor:
    """The tokens of which texts are made, (X,): those that say something and that search may produce."""
    never = {tokenizer.eos_id, tokenizer.blank_id, *tokenizer.suppressed_ids}
    candidates = (i for i in range(tokenizer.vocab_size) if i not in never)
    return torch.tensor([i for i in candidates if tokenizer.pieces([i])[0] or tokenizer.decode([i])])


def _uniforms(run: Pass, purpose: str) -> tuple[Tensor, Tensor]:
    """Two numbers from [0, 1) for each input token, (B, L) on the CPU; the first is 1 for start tokens and padding."""
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
    """Where the cumulated probabilities pass the draws."""
    reach_BLX = logits_BLX.double().softmax(-1).cumsum(-1)
    mark_BL1 = draw_BL[..., None] * reach_BLX[..., -1:]
    return torch.searchsorted(reach_BLX, mark_BL1, right=True)[..., 0].clamp(max=logits_BLX.shape[-1] - 1)


def _exp(x: float) -> float:
    return math.exp(min(x, 700.0))  # beyond that it overflows, and the share is 1 long since
