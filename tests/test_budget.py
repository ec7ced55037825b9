"""Batch sizes of decoding: chosen by free memory, and halved when out of memory."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from models import noises, small_model, sources, texts
from torch import Tensor

from asr.config import DecodeConfig, WhisperFeaturesConfig
from asr.errors import AsrError
from asr.recognizer import Recognizer, budget, parallel
from asr.recognizer.budget import FASTEST_S, Budget, Footprint, footprint, free_bytes

pytestmark = pytest.mark.filterwarnings("ignore:.*length cap")  # random models often reach it
CPU, GPU = torch.device("cpu"), torch.device("cuda")
MB = 1e6


def free(monkeypatch: pytest.MonkeyPatch, size: float) -> None:
    """Pretend that so many bytes are free on every device."""
    monkeypatch.setattr(budget, "free_bytes", lambda device: size)


# --- the size of batches ------------------------------------------------------------------------------


def test_batch_size_fills_half_of_the_free_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    free(monkeypatch, 200 * MB)
    seconds = Budget(Footprint(2 * MB, 0.0), GPU).seconds
    assert seconds == pytest.approx(50)


def test_batch_size_never_exceeds_the_fastest_one(monkeypatch: pytest.MonkeyPatch) -> None:
    free(monkeypatch, 1e15)
    assert Budget(Footprint(2 * MB, 0.0), CPU).seconds == FASTEST_S["cpu"]
    free(monkeypatch, math.inf)
    assert Budget(Footprint(2 * MB, 0.0), CPU).seconds == FASTEST_S["cpu"]


def test_requested_batch_size_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    free(monkeypatch, 0.0)
    assert Budget(Footprint(2 * MB, 0.0), CPU, 70.0).seconds == 70.0


def test_batches_count_the_length_and_fixed_cost_of_each_window(monkeypatch: pytest.MonkeyPatch) -> None:
    free(monkeypatch, 0.0)
    batches = list(Budget(Footprint(2 * MB, 1 * MB), CPU, 6.0).batches([1.0, 0.5, 5.0, 1.5, 1.0, 9.0]))
    assert batches == [[3, 0, 4], [1], [2], [5]]


def test_without_free_memory_each_batch_is_one_window(monkeypatch: pytest.MonkeyPatch) -> None:
    free(monkeypatch, 0.0)
    assert list(Budget(Footprint(2 * MB, 1 * MB), CPU).batches([1.0, 2.0])) == [[0], [1]]


def test_footprint_grows_with_beam_kept_padding_and_joint_ctc() -> None:
    parts = small_model()
    narrow, wide = (footprint(parts, DecodeConfig(beam_size=beam)) for beam in (1, 5))
    assert wide.second > narrow.second
    assert wide.window == 5 * narrow.window
    assert footprint(parts, DecodeConfig(n_best=5, temperature=1.0)) == wide, "n_best samples count like a beam"
    features = WhisperFeaturesConfig(sample_rate_hz=8000, n_mels=20, window_s=20.0)
    keep = {"padding": "keep", "subsampling": {"factor": 2}}
    whole = footprint(small_model(features=features, encoder=keep), DecodeConfig())
    recall = footprint(small_model(features=features, encoder=keep | {"padding": "recall"}), DecodeConfig())
    frame = 2 * 4 * (2 * 32 + 32)  # bytes: keys and values of one layer and the state, twice
    assert whole.window - narrow.window == pytest.approx(20.0 / 0.04 * frame)
    assert narrow.window < recall.window < whole.window / 5
    joint = footprint(parts, DecodeConfig(ctc_weight=0.3))
    assert joint.second - narrow.second == pytest.approx(25 * 3 * 8 * parts.tokenizer.vocab_size)  # frames of 40 ms


def test_free_memory_of_the_cpu_is_known() -> None:
    assert free_bytes(CPU) > 0


def test_memory_limit_of_a_container_is_respected(tmp_path: Path) -> None:
    assert budget._container_leaves(tmp_path) == math.inf
    for name, text in {"max": "max\n", "current": "300\n", "stat": "anon 1\ninactive_file 50\n"}.items():
        (tmp_path / f"memory.{name}").write_text(text)
    assert budget._container_leaves(tmp_path) == math.inf
    (tmp_path / "memory.max").write_text("1000\n")
    assert budget._container_leaves(tmp_path) == 750


# --- out of memory ------------------------------------------------------------------------------------

OUT_OF_MEMORY = [
    torch.OutOfMemoryError("CUDA out of memory.\nTried to allocate 20 GiB."),
    RuntimeError("[enforce fail at alloc_cpu.cpp:117] DefaultCPUAllocator: can't allocate memory: you tried ..."),
]


def small_memory(recognizer: Recognizer, monkeypatch: pytest.MonkeyPatch, most: int, error: Exception) -> list[int]:
    """Make encoding fail for more than `most` windows at once; return the list of batch sizes tried."""
    tried: list[int] = []
    encode: Callable[[Tensor, Tensor], object] = recognizer.decoder.encode

    def limited(audio_BN: Tensor, len_B: Tensor) -> object:
        tried.append(len(len_B))
        if len(len_B) > most:
            raise error
        return encode(audio_BN, len_B)

    monkeypatch.setattr(recognizer.decoder, "encode", limited)
    return tried


@pytest.mark.parametrize("error", OUT_OF_MEMORY)
def test_batches_are_halved_after_running_out_of_memory(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    monkeypatch.setattr(parallel, "WORKERS", 1)
    recognizer = Recognizer(small_model())
    audio = noises(*[1.44 - 0.02 * i for i in range(48)])
    expected = texts(list(recognizer.transcribe_sources(sources(audio))))
    assert len(set(expected)) > 10
    extra_s = Budget(recognizer.decoder.footprint, CPU, 1.0).extra_s
    told: list[float] = []
    tried = small_memory(recognizer, monkeypatch, 3, error)
    found = recognizer.transcribe_sources(
        sources(audio), batch_s=12 * (1.45 + extra_s), on_done=lambda done_s, all_s: told.append(done_s)
    )
    assert texts(list(found)) == expected
    assert tried[:4] == [12, 6, 3, 3], "batches must be halved until they fit"
    assert sum(size > 7 for size in tried) <= 2, "a size that failed is tried again only by a batch already made"
    assert told == sorted(told)
    assert told[-1] == pytest.approx(sum(len(a) for a in audio) / 8000)


def test_error_if_one_window_does_not_fit_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    recognizer = Recognizer(small_model())
    tried = small_memory(recognizer, monkeypatch, 0, OUT_OF_MEMORY[0])
    with pytest.raises(AsrError, match=r"^cpu: too little memory for one window of 0\.5 s; .*--beam-size") as caught:
        list(recognizer.transcribe_sources(sources(noises(0.5, 0.5)), batch_s=50))
    assert tried == [2, 1]
    assert "\n" not in str(caught.value)


def test_other_errors_are_not_treated_as_out_of_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    recognizer = Recognizer(small_model())
    tried = small_memory(recognizer, monkeypatch, 0, RuntimeError("shapes do not match"))
    with pytest.raises(RuntimeError, match="shapes do not match"):
        list(recognizer.transcribe_sources(sources(noises(0.5, 0.5)), batch_s=50))
    assert tried == [2]


# --- memory kept by the process -----------------------------------------------------------------------


def test_one_heap_is_shared_and_trimmed_after_every_pool(monkeypatch: pytest.MonkeyPatch) -> None:
    events: list[str] = []
    recognizer = Recognizer(small_model())
    encode: Callable[[Tensor, Tensor], object] = recognizer.decoder.encode
    monkeypatch.setattr(recognizer.decoder, "encode", lambda *audio: events.append("batch") or encode(*audio))
    monkeypatch.setattr("asr.recognizer.budget._libc", lambda name: lambda *options: events.append(name))
    monkeypatch.setattr("asr.recognizer.pool.POOL_S", 0.8)
    texts(list(recognizer.transcribe_sources(sources(noises(0.5, 0.4, 0.3)), batch_s=0.1)))
    assert sorted(events) == ["batch"] * 3 + ["malloc_trim"] * 2 + ["mallopt"]


@pytest.mark.skipif(sys.platform != "linux", reason="functions of glibc")
def test_missing_libc_functions_are_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    for _ in range(2):
        budget.share_heap()
        budget.release()
        monkeypatch.setattr("asr.recognizer.budget._libc", lambda name: None)
