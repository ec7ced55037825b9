"""What is settled before the first step of a run: devices, precision, and the statistics of the features."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from synthetic import experiment, experiment_file, speech_data, untrained

import asr.training.folder
import asr.training.start
from asr.config import EXPERIMENT, ExperimentConfig, read_config
from asr.errors import AsrError, ConfigError
from asr.features import GlobalNormalization
from asr.machine import cores, find_device, processor
from asr.training.callbacks import enough_memory
from asr.training.folder import as_claimed, claim_folder, decided, device_of
from asr.training.start import measure_normalization
from asr.training.states import state_path

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return experiment_file(tmp_path_factory.mktemp("corpus"), train=20, dev=2)


@pytest.fixture
def two_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)


def test_device_auto_is_a_gpu_if_there_is_one(two_gpus: None) -> None:
    assert find_device("auto") == find_device("cuda") == torch.device("cuda")
    assert find_device("cuda:1") == torch.device("cuda:1")
    assert find_device("cpu") == CPU
    for unknown in ("cuda:01", "cuda:200", "cuda:9999999", "cuda:"):
        with pytest.raises(ConfigError, match=f"device {unknown}: it is auto, cpu, cuda or"):
            find_device(unknown)
    with pytest.raises(ConfigError, match="device cuda:2: torch finds 2 GPUs here, counted from 0"):
        find_device("cuda:2")


def test_device_auto_is_the_cpu_without_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert find_device("auto") == CPU
    with pytest.raises(ConfigError, match="device cuda: torch finds no GPU here; leave it out, or say cpu"):
        find_device("cuda")


def test_processor_and_core_count_are_known() -> None:
    assert processor(CPU)
    assert cores() >= 1


def test_run_on_more_gpus_than_present_is_refused(path: Path, two_gpus: None) -> None:
    assert device_of(experiment(path, "trainer.device=auto", "trainer.devices=2").trainer).type == "cuda"
    assert device_of(experiment(path, "trainer.device=cpu", "trainer.devices=3").trainer) == CPU
    with pytest.raises(ConfigError, match=r"trainer\.devices=3: torch finds 2 here"):
        device_of(experiment(path, "trainer.device=cuda", "trainer.devices=3").trainer)


def test_resumed_run_keeps_its_precision(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def begin(fast: bool, *overrides: str) -> ExperimentConfig:
        monkeypatch.setattr(asr.training.folder, "multiplies_bfloat16", lambda device: fast)
        config = decided(experiment(path, f"out={tmp_path / 'run'}", *overrides), CPU)
        claim_folder(config)
        return config

    asked = experiment(path, f"out={tmp_path / 'run'}", "trainer.precision=auto")
    assert begin(True, "trainer.precision=auto").trainer.precision == "bf16"
    assert read_config(ExperimentConfig, tmp_path / "run" / EXPERIMENT).trainer.precision == "bf16"
    assert begin(False, "trainer.precision=auto").trainer.precision == "fp32"  # nothing has been trained yet
    assert as_claimed(asked).trainer.precision == "fp32"
    assert begin(True, "trainer.precision=auto").trainer.precision == "bf16"
    (state := state_path(tmp_path / "run" / "states", 1)).parent.mkdir()
    state.touch()
    assert begin(False, "trainer.precision=auto").trainer.precision == "bf16"
    with pytest.raises(ConfigError, match=r"trainer\.precision differ"):
        begin(False, "trainer.precision=fp32")
    state.unlink()
    assert begin(False, "trainer.precision=fp32").trainer.precision == "fp32"


@pytest.mark.parametrize("at_most", [5000, 5])
def test_global_normalization_has_the_statistics_of_the_measured_cuts(
    path: Path, at_most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(asr.training.start, "_MEASURED", at_most)
    config = experiment(path, "features.normalization=global")
    parts = untrained(config)
    data = speech_data(config, parts)
    measure_normalization(parts, data)
    cuts = list(data.train_cuts)[:: 4 if at_most == 5 else 1]
    assert len(cuts) == min(at_most, 20)
    batches = [data.dev_batch([cut]) for cut in cuts]
    frames = [parts.model.front_end.spectrum(batch.audio_BN, batch.audio_len_B).x_BTF[0] for batch in batches]
    found = parts.model.front_end.normalization
    assert isinstance(found, GlobalNormalization)
    std_F, mean_F = torch.std_mean(torch.cat(frames).double(), dim=0, correction=0)
    torch.testing.assert_close(found.mean_F.double(), mean_F, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(found.std_F.double(), std_F.clamp(min=1e-2), rtol=1e-4, atol=1e-4)


def test_running_out_of_memory_in_a_later_step_gives_advice() -> None:
    with (
        pytest.raises(AsrError, match=r"out of memory; the last state is intact.*lower data\.batch_duration_s"),
        enough_memory(),
    ):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")
    with pytest.raises(RuntimeError, match="illegal"), enough_memory():
        raise RuntimeError("an illegal memory access was encountered")
