"""Resampling preserves tones and duration in bounded memory; block by block it gives the same as all at once."""

from __future__ import annotations

import math
from collections.abc import Iterator

import pytest
import torch
import torchaudio.functional
from torch import Tensor

from asr import resampling
from asr.resampling import regroup, resample, resample_blocks


def blocks_of(audio_N: Tensor, sizes: list[int]) -> Iterator[Tensor]:
    """Yield blocks of these sizes, over and over."""
    start = count = 0
    while start < len(audio_N):
        size = sizes[count % len(sizes)]
        yield audio_N[start : start + size]
        start, count = start + size, count + 1


def joined(blocks: Iterator[Tensor]) -> Tensor:
    return torch.cat([torch.zeros(0), *blocks])


@pytest.mark.parametrize(
    ("from_hz", "to_hz"), [(8000, 16000), (44100, 16000), (7200, 8000), (8800, 8000), (7993, 8000), (44099, 16000)]
)
def test_resampling_preserves_a_tone(from_hz: int, to_hz: int, monkeypatch: pytest.MonkeyPatch) -> None:
    torchaudio_resample = torchaudio.functional.resample

    def small_kernels_only(audio_N: Tensor, from_hz: int, to_hz: int, *filter: float) -> Tensor:
        assert from_hz // math.gcd(from_hz, to_hz) < 10_000, "the kernel would take gigabytes"
        return torchaudio_resample(audio_N, from_hz, to_hz, *filter)

    monkeypatch.setattr(torchaudio.functional, "resample", small_kernels_only)
    n = 2 * from_hz + 17
    audio_N = torch.sin(torch.arange(n) * 2 * math.pi * 440 / from_hz)
    got_N = resample(audio_N, from_hz, to_hz)
    assert len(got_N) == math.ceil(n * to_hz / from_hz)
    assert got_N.dtype == torch.float32
    expected_N = torch.sin(torch.arange(len(got_N)) * 2 * math.pi * 440 / to_hz)
    middle = slice(500, -500)  # the filter rings at both ends
    torch.testing.assert_close(got_N[middle], expected_N[middle], atol=3e-3, rtol=0)


@pytest.mark.parametrize("sizes", [[1, 7000], [480_000], [333, 0, 1000]])
@pytest.mark.parametrize("seconds", [0.00001, 1.0, 3.333])
@pytest.mark.parametrize(
    ("from_hz", "to_hz"),
    [(8000, 16000), (44100, 16000), (48000, 16000), (22050, 8000), (16000, 16000), (44099, 16000), (96000, 16000)],
)
def test_joined_blocks_equal_the_whole(
    from_hz: int, to_hz: int, seconds: float, sizes: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resampling, "BLOCK_S", 0.3)
    audio_N = torch.randn(max(1, round(seconds * from_hz)), generator=torch.Generator().manual_seed(0))
    whole_N = resample(audio_N, from_hz, to_hz)
    streamed_N = joined(resample_blocks(blocks_of(audio_N, sizes), from_hz, to_hz))
    torch.testing.assert_close(streamed_N, whole_N, rtol=0, atol=1e-6)


def test_no_blocks_give_no_samples() -> None:
    assert len(joined(resample_blocks([], 8000, 16000))) == 0
    assert len(joined(resample_blocks([], 44099, 16000))) == 0


def test_block_boundaries_do_not_change_the_values(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resampling, "BLOCK_S", 0.3)
    audio_N = torch.randn(40_000, generator=torch.Generator().manual_seed(0))
    once_N, often_N = (joined(resample_blocks(blocks_of(audio_N, [n]), 44100, 16000)) for n in (40_000, 701))
    assert torch.equal(once_N, often_N)


def test_blocks_are_yielded_before_all_input_is_read() -> None:
    taken = []

    def blocks() -> Iterator[Tensor]:
        for number in range(100):
            taken.append(number)
            yield torch.zeros(8000)

    next(resample_blocks(blocks(), 8000, 16000))
    assert len(taken) <= 2 * resampling.BLOCK_S


def test_regrouped_blocks_have_the_given_size() -> None:
    audio_N = torch.arange(1000.0)
    groups = list(regroup(blocks_of(audio_N, [1, 90, 0, 350]), 100))
    assert [len(group) for group in groups] == [100] * 10
    assert torch.equal(torch.cat(groups), audio_N)
    assert [len(group) for group in regroup([audio_N], 300)] == [300, 300, 300, 100]
    assert list(regroup([torch.zeros(0)], 5)) == []
