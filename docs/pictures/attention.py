"""A picture of dot-product attention: why scores are scaled, and what each token of an autoregressive decoder sees.

Shapes: L tokens, T frames, D width, K head width, N queries, S keys.
"""

from __future__ import annotations

from pathlib import Path

import torch
from matplotlib.figure import Figure
from torch import Tensor

from asr.config import ExperimentConfig, read_config
from asr.lengths import within
from asr.model.attention import attention_weights
from asr.model.build import build_model
from asr.model.decoder import Decoder
from asr.model.masks import Memory, log_weight
from docs.pictures.style import BLUE, ORANGE, SHARES, figure

ROOT = Path(__file__).parents[2]
TOKENS, FRAMES, SPEECH = 12, 24, 18  # the last frames are padding


def attention() -> Figure:
    """Draw the largest attention weight by the width of a head, and which tokens and frames a prediction depends on."""
    title = "How sharp attention to 50 random keys is, and what an untrained decoder's predictions depend on"
    picture, ((sharp, tokens, frames),) = figure(title, 3.0, 1, 3)
    widths = [2**i for i in range(2, 10)]
    for scale, name, colour in ((True, "q . k / sqrt(K)", BLUE), (False, "q . k", ORANGE)):
        sharp.plot(widths, [_largest(K, scale=scale) for K in widths], "o-", color=colour, label=name)
    sharp.set(xscale="log", xlabel="width K of a head", ylabel="largest weight", ylim=(0, 1))
    sharp.set_xticks(widths[::2], list(map(str, widths[::2])))
    sharp.minorticks_off()
    sharp.legend()
    token_LL, frame_LT = seen()
    for axis, marked, name in ((tokens, token_LL, "token so far"), (frames, frame_LT, "encoder frame")):
        axis.imshow(marked, cmap=SHARES, vmin=0, vmax=1.3, origin="upper", aspect="auto")
        axis.set(xlabel=name, xticks=range(0, marked.shape[1], 4), yticks=range(0, TOKENS, 4))
    tokens.set_ylabel("prediction after token")
    frames.set_title(f"the last {FRAMES - SPEECH} frames are padding")
    return picture


@torch.no_grad()
def _largest(K: int, *, scale: bool) -> float:
    """Return the largest weight, the mean of 200 queries, of 50 keys of normally distributed elements."""
    draw = torch.Generator().manual_seed(0)
    q_NK, k_SK = torch.randn(200, K, generator=draw), torch.randn(50, K, generator=draw)
    return float(attention_weights(q_NK if scale else q_NK * K**0.5, k_SK, None).amax(-1).mean())


def seen() -> tuple[Tensor, Tensor]:
    """Return whether each token's state depends on each token (L, L) and on each frame (L, T), by its gradient."""
    torch.manual_seed(0)
    config = read_config(ExperimentConfig, ROOT / "conf" / "prompts" / "en.yaml")
    decoder = build_model(config.features, config.model, TOKENS).eval().decoder
    assert isinstance(decoder, Decoder)
    states_1TD = torch.randn(1, FRAMES, config.model.encoder.dim, requires_grad=True)
    len_1 = torch.tensor([SPEECH])
    memory = Memory(states_1TD, log_weight(within(len_1, FRAMES)), len_1)
    x_LD = decoder.read(torch.arange(TOKENS)[None], memory)[0][0]  # all tokens differ, so each has a row of its own
    given = decoder.embedding.weight, states_1TD
    found = [torch.autograd.grad((x_D * torch.randn_like(x_D)).sum(), given, retain_graph=True) for x_D in x_LD]
    token_LL, frame_LT = (
        torch.stack([row.flatten(0, -2).norm(dim=1) for row in rows]) for rows in zip(*found, strict=True)
    )
    return token_LL > 0, frame_LT > 0


PLAIN = {"attention": attention}
