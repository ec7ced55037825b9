"""Reduced precision gives nearly the same results, and a row's result never depends on the other rows."""

from __future__ import annotations

import pytest
import torch
from models import noises, small_model
from torch import nn

from asr.data.batch import pad_audio
from asr.model.attention import blockwise, fused
from asr.model.masks import causal
from asr.model.precision import (
    InBlocks,
    Int8Linear,
    NarrowInt8Linear,
    PackedInt8Linear,
    fastest,
    multiplies_bfloat16,
    set_precision,
)
from asr.recognizer import Recognizer

ABLE = torch.cpu.get_capabilities()
needs_onednn = pytest.mark.skipif(
    not torch.backends.mkldnn.is_available() or (ABLE["architecture"] == "x86_64" and not ABLE["avx512_vnni"]),
    reason="oneDNN has exact 8-bit products only with VNNI; NarrowInt8Linear is for other x86 processors",
)
needs_fbgemm = pytest.mark.skipif(
    "fbgemm" not in torch.backends.quantized.supported_engines, reason="FBGEMM is for x86"
)
NARROW, PACKED = pytest.param(NarrowInt8Linear, marks=needs_fbgemm), pytest.param(PackedInt8Linear, marks=needs_onednn)


@pytest.mark.parametrize("kind", [Int8Linear, NARROW])
def test_int8_product_is_close_to_the_exact_one(kind: type[Int8Linear]) -> None:
    torch.manual_seed(0)
    linear, x_MK = nn.Linear(96, 40), torch.randn(15, 96)
    got, exact = kind(linear)(x_MK), linear(x_MK)
    assert got.shape == exact.shape
    assert (got - exact).norm() < 0.02 * exact.norm()
    assert not torch.equal(got, exact)


@needs_onednn
@torch.inference_mode()
def test_packed_int8_product_is_bitwise_identical() -> None:
    torch.manual_seed(0)
    linear, x_MK = nn.Linear(96, 40), torch.randn(300, 96)
    assert torch.equal(PackedInt8Linear(linear)(x_MK), Int8Linear(linear)(x_MK))


@pytest.mark.parametrize("kind", [Int8Linear, NARROW, PACKED])
@torch.inference_mode()
def test_largest_int8_products_do_not_overflow(kind: type[Int8Linear]) -> None:
    linear = nn.Linear(96, 8, bias=False)
    nn.init.ones_(linear.weight)
    torch.testing.assert_close(kind(linear)(torch.ones(3, 96)), torch.full((3, 8), 96.0))


@pytest.mark.parametrize("kind", [Int8Linear, NARROW, PACKED])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("M", [50, 700])
def test_int8_product_of_a_row_does_not_depend_on_other_rows(
    M: int, dtype: torch.dtype, kind: type[Int8Linear]
) -> None:
    torch.manual_seed(0)
    linear, x_MK = InBlocks(kind(nn.Linear(64, 30, bias=False)), 30), torch.randn(M, 64, dtype=dtype)
    x_MK[7] *= 1e4  # one scale for all rows would round the others to zero
    x_MK[9] = 0.0
    together = linear(x_MK)
    assert (together.shape, together.dtype) == ((M, 30), dtype)
    for row in (0, 7, 9, 49, M - 1):
        assert torch.equal(together[row], linear(x_MK[row : row + 1])[0])
    assert not together[9].any()


@pytest.mark.parametrize("precision", ["bfloat16", "int8"])
def test_model_in_reduced_precision_gives_nearly_the_same_logits(precision: str) -> None:
    audio_BN, len_B = pad_audio(noises(1.0, 0.7))
    tokens_BL = torch.tensor([[1, 5, 6, 7]] * 2)
    exact, cheap = small_model().model, small_model().model
    set_precision(cheap, precision)
    with torch.inference_mode():
        expected, _ = exact.decoder(tokens_BL, exact.encode(audio_BN, len_B))
        got, _ = cheap.decoder(tokens_BL, cheap.encode(audio_BN, len_B))
    assert 0 < (got - expected).norm() < 0.2 * expected.norm()


@pytest.mark.parametrize("precision", ["bfloat16", "int8"])
@pytest.mark.parametrize("options", [{}, {"beam_size": 3, "ctc_weight": 0.5}])
def test_recogniser_decodes_in_reduced_precision(precision: str, options: dict[str, float]) -> None:
    recognizer = Recognizer(small_model(**options), precision=precision)
    found = recognizer.decode(*pad_audio(noises(1.0, 0.4, 0.7)))
    assert all(hypotheses[0].tokens for hypotheses in found)


@pytest.mark.parametrize("L", [3, 256, 700])
def test_blockwise_attention_equals_fused_attention(L: int) -> None:
    torch.manual_seed(0)
    q, k, v = (torch.randn(2, 3, L, 8) for _ in range(3))
    for weight in (None, torch.randn(2, 1, 1, L), causal(L, q.device)):
        torch.testing.assert_close(blockwise(q, k, v, weight)[0], fused(q, k, v, weight)[0])


@pytest.mark.parametrize(
    ("able", "expected"),
    [
        ((), "float32"),
        (("avx2",), "int8"),
        (("avx2", "avx512_bf16", "avx512_vnni"), "int8"),
        (("avx2", "avx512_bf16", "avx512_vnni", "amx_bf16"), "bfloat16"),
    ],
)
def test_fastest_precision_on_a_cpu_follows_its_instructions(
    able: tuple[str, ...], expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: dict.fromkeys(able, True))
    assert fastest(torch.device("cpu")) == expected


@pytest.mark.parametrize(
    ("able", "kind", "rest"),
    [
        pytest.param(("avx2",), NarrowInt8Linear, torch.float32, marks=needs_fbgemm),
        (("avx2", "avx512_vnni"), Int8Linear, torch.float32),
        (("avx2", "avx512_vnni", "avx512_bf16"), Int8Linear, torch.bfloat16),
    ],
)
def test_int8_uses_what_the_processor_multiplies(
    able: tuple[str, ...], kind: type[Int8Linear], rest: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: dict.fromkeys(able, True))
    model = small_model().model
    set_precision(model, "int8")
    assert {type(m) for m in model.encoder.modules() if isinstance(m, Int8Linear)} == {kind}
    assert {p.dtype for p in model.encoder.parameters() if p.dim() == 3} == {rest}  # the convolutions


def test_batch_encoded_in_parts_gives_the_same_texts(monkeypatch: pytest.MonkeyPatch) -> None:
    recognizer = Recognizer(small_model())
    batch = pad_audio(noises(1.0, 0.9, 0.5, 0.3))
    whole = [h[0].tokens for h in recognizer.decode(*batch)]
    monkeypatch.setattr("asr.recognizer.batch.ENCODE_S", {"cpu": 2.0})
    assert [h[0].tokens for h in recognizer.decode(*batch)] == whole


@pytest.mark.parametrize(("capability", "fast"), [((7, 0), False), ((7, 5), False), ((8, 0), True), ((9, 0), True)])
def test_bfloat16_is_not_used_on_gpus_that_emulate_it(
    capability: tuple[int, int], fast: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    assert multiplies_bfloat16(torch.device("cuda:1")) == fast
    assert fastest(torch.device("cuda:1")) == ("bfloat16" if fast else "float32")
