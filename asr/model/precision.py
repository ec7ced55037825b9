"""Cheaper arithmetic for decoding: bfloat16, or linear maps in 8 bits.

Shapes: M rows, K inputs, N outputs.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from asr.model.attention import Attend, CrossAttention, SelfAttention, blockwise
from asr.model.speech import SpeechModel

Precision = Literal["float32", "bfloat16", "int8"]


class Int8Linear(nn.Module):
    """A linear map whose weights and inputs are rounded to 8 bits, each output and each input row with its own scale.

    A row is rounded by itself and integers add up exactly: other rows never change its result.  Rows go in blocks: what
    is done to the product's inputs and outputs costs as much as the product where it does not stay in the caches.
    """

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        weight_NK = linear.weight.detach().float()
        scale_N = (weight_NK.abs().amax(1) / 127).clamp(min=1e-12)
        self.register_buffer("weight_KN", (weight_NK / scale_N[:, None]).round_().to(torch.int8).t())
        self.register_buffer("scale_N", scale_N)
        self.bias = linear.bias

    weight_KN: Tensor
    scale_N: Tensor

    def forward(self, x: Tensor) -> Tensor:
        """(..., K) -> (..., N), in the precision of the input."""
        x_MK = x.reshape(-1, x.shape[-1])
        if len(x_MK) <= _BLOCK:
            y_MN = self._block(x_MK).to(x.dtype)
        else:
            y_MN = x_MK.new_empty(len(x_MK), len(self.scale_N))
            for own_MN, own_MK in zip(y_MN.split(_BLOCK), x_MK.split(_BLOCK), strict=True):
                own_MN.copy_(self._block(own_MK))
        return y_MN.view(*x.shape[:-1], -1)

    def _block(self, x_MK: Tensor) -> Tensor:
        x_MK = x_MK.float()
        scale_M1 = (x_MK.abs().amax(1, keepdim=True) / 127).clamp_(min=1e-12)
        # A private name, but the one 8-bit product that torch has for plain tensors; torchao stands on it too.
        y_MN = torch._int_mm((x_MK / scale_M1).round_().to(torch.int8), self.weight_KN).float()
        y_MN.mul_(self.scale_N).mul_(scale_M1)
        return y_MN if self.bias is None else y_MN.add_(self.bias)


_BLOCK = 256  # rows


class Bfloat16Embedding(nn.Embedding):
    """An embedding that takes half the memory; vectors come out in float32."""

    def __init__(self, embedding: nn.Embedding) -> None:
        count, dim = embedding.weight.shape
        super().__init__(count, dim, _weight=embedding.weight.detach().bfloat16())

    def forward(self, tokens: Tensor) -> Tensor:
        return super().forward(tokens).float()


def fastest(device: torch.device) -> Precision:
    """The precision that is fast on a device without a noticeable loss."""
    if device.type == "cuda":
        return "bfloat16" if torch.cuda.is_bf16_supported() else "float32"
    able = torch.cpu.get_capabilities()
    return "int8" if able.get("avx512_bf16") and able.get("avx512_vnni") else "float32"


def attend_by(attend: Attend, model: nn.Module) -> None:
    """Let all attention of a model be computed so."""
    for module in model.modules():
        if isinstance(module, SelfAttention | CrossAttention):
            module.attend = attend


def set_precision(model: SpeechModel, precision: Precision) -> None:
    """Change a model in evaluation mode, for good; features and log-probabilities stay in float32.

    int8 rounds linear maps to 8 bits and computes the rest of the encoder and the attention to it in bfloat16, the rest
    of the decoder in float32, whose embedding is held in bfloat16; it is for the CPU.
    """
    if precision == "float32":
        return
    model.encoder.to(torch.bfloat16)
    if next(model.parameters()).device.type == "cpu":
        attend_by(blockwise, model)
    if precision == "bfloat16":
        for part in (model.decoder, model.ctc):
            if part is not None:
                part.to(torch.bfloat16)
        return
    _round(model.encoder, but=("out",))  # no faster in 8 bits, and what loses most by them
    _round(model.decoder, but=("key_value",))  # over many frames it is no faster
    for module in model.decoder.modules():
        if isinstance(module, CrossAttention):
            module.key_value.to(torch.bfloat16)
    model.decoder.embedding = Bfloat16Embedding(model.decoder.embedding)


def _round(part: nn.Module, but: tuple[str, ...]) -> None:
    for parent in list(part.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, nn.Linear) and name not in but:
                setattr(parent, name, Int8Linear(child))
