"""Cheaper arithmetic for decoding: bfloat16, or linear maps in 8 bits.

Shapes: M rows, K inputs, N outputs.
"""

from __future__ import annotations

from typing import Literal, cast

import torch
from torch import Tensor, nn

from asr.model.attention import Attend, CrossAttention, SelfAttention, blockwise
from asr.model.decoder import Decoder
from asr.model.layers import FeedForward
from asr.model.masked import MaskedDecoder
from asr.model.speech import SpeechModel
from asr.model.transducer import Transducer

Precision = Literal["float32", "bfloat16", "int8"]


class Int8Linear(nn.Module):
    """A linear map with weights and inputs rounded to 8 bits, each output and each input row with its own scale.

    Each row is rounded by itself and integers add up exactly, so other rows never change its result.
    """

    most = 127  # of a rounded input

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        weight_NK = linear.weight.detach().float()
        scale_N = (weight_NK.abs().amax(1) / 127).clamp(min=1e-12)
        self.register_buffer("weight_KN", (weight_NK / scale_N[:, None]).round_().to(torch.int8).t())
        self.register_buffer("scale_N", scale_N)
        self.bias = linear.bias

    weight_KN: Tensor
    scale_N: Tensor

    def forward(self, x_MK: Tensor) -> Tensor:
        """Map (M, K) to (M, N), both in float32."""
        scale_M1 = (x_MK.abs().amax(1, keepdim=True) / self.most).clamp_(min=1e-12)
        y_MN = self._product(x_MK / scale_M1).mul_(scale_M1)
        return y_MN if self.bias is None else y_MN.add_(self.bias)

    def _product(self, x_MK: Tensor) -> Tensor:
        # A private function, but torch's only 8-bit product for plain tensors; torchao is built on it too.
        return torch._int_mm(x_MK.round_().to(torch.int8), self.weight_KN).float().mul_(self.scale_N)


class PackedInt8Linear(Int8Linear):
    """Int8Linear through oneDNN, which scales the products itself: faster for few rows and many outputs."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__(linear)
        self.packed = torch.ops.onednn.qlinear_prepack(self.weight_KN.t(), None)
        self.register_buffer("zero_N", torch.zeros(len(self.scale_N), dtype=torch.long))
        del self.weight_KN

    zero_N: Tensor

    def _product(self, x_MK: Tensor) -> Tensor:
        shifted_MK, weight = x_MK.round_().add_(_SHIFT).to(torch.uint8), (self.packed, self.scale_N, self.zero_N)
        y_MN: Tensor = torch.ops.onednn.qlinear_pointwise(
            shifted_MK, 1.0, _SHIFT, *weight, None, 1.0, 0, torch.float32, "none", [], ""
        )
        return y_MN


class NarrowInt8Linear(Int8Linear):
    """Int8Linear through FBGEMM, with inputs of 7 bits, for x86 processors without VNNI.

    Such processors add products in pairs, in 16 bits, which two products of 8 by 8 bits can exceed.
    """

    most = 63

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__(linear)
        places = torch.zeros(len(self.scale_N), dtype=torch.long), 0  # zero points, and the dimension of the outputs
        weight_NK = torch.quantize_per_channel(linear.weight.detach().float(), self.scale_N, *places, torch.qint8)
        self.packed = torch.ops.quantized.linear_prepack(weight_NK, None)
        del self.weight_KN

    def _product(self, x_MK: Tensor) -> Tensor:
        product = torch.ops.quantized.linear_with_input_q_dq_qweight_dq_output_fp32
        y_MN: Tensor = product(x_MK, 1.0, self.most + 1, self.packed)
        return y_MN


class InBlocks(nn.Module):
    """Wraps a part that treats each row by itself, and runs it in float32 on one block of rows at a time.

    Outside the caches, the element-wise operations around the matrix products cost as much as the products.
    """

    def __init__(self, part: nn.Module, outputs: int) -> None:
        super().__init__()
        self.part, self.outputs = part, outputs

    def forward(self, x: Tensor) -> Tensor:
        """Map (..., K) to (..., N), in the precision of the input."""
        x_MK = x.reshape(-1, x.shape[-1])
        if len(x_MK) <= _BLOCK:
            y_MN = self.part(x_MK.float()).to(x.dtype)
        else:
            y_MN = x_MK.new_empty(len(x_MK), self.outputs)
            for own_MN, own_MK in zip(y_MN.split(_BLOCK), x_MK.split(_BLOCK), strict=True):
                own_MN.copy_(self.part(own_MK.float()))
        return y_MN.view(*x.shape[:-1], -1)


_BLOCK = 128  # rows
_SHIFT = 128  # makes the inputs unsigned, as oneDNN needs them


class Bfloat16Embedding(nn.Embedding):
    """An embedding stored in bfloat16, half the memory; the vectors it returns are float32."""

    def __init__(self, embedding: nn.Embedding) -> None:
        count, dim = embedding.weight.shape
        super().__init__(count, dim, _weight=embedding.weight.detach().bfloat16())

    def forward(self, tokens: Tensor) -> Tensor:
        return super().forward(tokens).float()


def multiplies_bfloat16(device: torch.device) -> bool:
    """Return whether a device multiplies bfloat16 faster than float32; GPUs before Ampere only emulate it."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    able = torch.cpu.get_capabilities()
    return bool(able.get("avx512_bf16") or able.get("amx_tile"))


def fastest(device: torch.device) -> Precision:
    """Return the precision that is fastest on a device without a noticeable loss of accuracy."""
    if device.type == "cuda":
        return "bfloat16" if multiplies_bfloat16(device) else "float32"
    able = torch.cpu.get_capabilities()
    if able.get("amx_bf16"):
        return "bfloat16"  # its products are as fast as rounding to 8 bits and back
    return "int8" if able.get("avx2") else "float32"


def attend_by(attend: Attend, model: nn.Module) -> None:
    """Make all attention of a model use `attend`."""
    for module in model.modules():
        if isinstance(module, SelfAttention | CrossAttention):
            module.attend = attend


def set_precision(model: SpeechModel, precision: Precision) -> None:
    """Convert a model in evaluation mode, irreversibly; features and log-probabilities stay in float32.

    int8, for the CPU, rounds linear maps to 8 bits; the rest of the encoder and the attention to it run in bfloat16
    if the processor multiplies that, the rest of the decoder in float32, and the decoder's embedding is stored in
    bfloat16.  A transducer's own networks, which are small, stay in float32.
    """
    if precision == "float32":
        return
    device = next(model.parameters()).device
    if precision == "bfloat16" or multiplies_bfloat16(device):
        model.encoder.to(torch.bfloat16)
        if device.type == "cpu":
            attend_by(blockwise, model)
    if precision == "bfloat16":
        for part in (model.decoder, model.ctc):
            if part is not None and not isinstance(part, Transducer):
                part.to(torch.bfloat16)
        return
    plain, wide = _int8_kinds()
    _round(model.encoder, plain, but=("out",))  # no faster in 8 bits, and the most sensitive to them
    if not isinstance(model.decoder, Decoder | MaskedDecoder):
        return
    _round(model.decoder, plain, but=("output", "rate", "pointer"))
    output = cast(nn.Linear, model.decoder.output)
    model.decoder.output = InBlocks(wide(output), output.out_features)
    model.decoder.embedding = Bfloat16Embedding(model.decoder.embedding)


def _int8_kinds() -> tuple[type[Int8Linear], type[Int8Linear]]:
    """Return the classes for this processor: of linear maps, and of the one with the whole vocabulary as outputs."""
    able = torch.cpu.get_capabilities()
    if able.get("avx2") and not able.get("avx512_vnni"):
        return NarrowInt8Linear, NarrowInt8Linear
    return Int8Linear, PackedInt8Linear if torch.backends.mkldnn.is_available() else Int8Linear


def _round(part: nn.Module, kind: type[Int8Linear], but: tuple[str, ...]) -> None:
    for name, child in list(part.named_children()):
        if name in but:
            continue
        if isinstance(child, FeedForward):
            inner = nn.Sequential(*(kind(map) if isinstance(map, nn.Linear) else map for map in child))
            setattr(part, name, InBlocks(inner, cast(nn.Linear, child[-1]).out_features))
        elif isinstance(child, nn.Linear):
            setattr(part, name, InBlocks(kind(child), child.out_features))
        else:
            _round(child, kind, but)
