"""Cheaper arithmetic for decoding: bfloat16, or an encoder in bfloat16 with a decoder in 8 bits.

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

    A row is rounded by itself and integers add up exactly: other rows never change its result.
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
        """(..., K) -> (..., N) in float32."""
        x_MK = x.float().reshape(-1, x.shape[-1])
        scale_M1 = (x_MK.abs().amax(1, keepdim=True) / 127).clamp(min=1e-12)
        # A private name, but the one 8-bit product that torch has for plain tensors; torchao stands on it too.
        y_MN = torch._int_mm((x_MK / scale_M1).round_().to(torch.int8), self.weight_KN).float()
        y_MN.mul_(self.scale_N).mul_(scale_M1)
        if self.bias is not None:
            y_MN += self.bias
        return y_MN.view(*x.shape[:-1], -1)


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

    int8 rounds the decoder's linear maps to 8 bits, keeps its sums in float32, holds its embedding in bfloat16, and
    computes the encoder and the attention to it in bfloat16; it is for the CPU.
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
    for parent in list(model.decoder.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(parent, CrossAttention) and name == "key_value":
                child.to(torch.bfloat16)  # over many frames at once this is the faster product
            elif isinstance(child, nn.Linear):
                setattr(parent, name, Int8Linear(child))
    model.decoder.embedding = Bfloat16Embedding(model.decoder.embedding)
