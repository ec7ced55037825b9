"""A run on synthetic noise: it can be killed at any point and ends as if it had not been."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf
from lhotse import CutSet, MonoCut, Recording, SupervisionSegment
from lhotse.audio import AudioSource

from asr.checkpoint import load_model_folder

RATE = 8000
WORDS = ["one", "two", "three", "four", "five"]


def corpus(folder: Path, split: str, count: int, seed: int) -> Path:
    """Clips of noise with one or two words of text each."""
    draw, cuts = random.Random(seed), []
    for i in range(count):
        n = draw.randrange(RATE // 2, 2 * RATE)
        path = folder / f"{split}-{i}.wav"
        sf.write(path, np.random.default_rng(seed * 1000 + i).normal(0, 0.1, n).astype(np.float32), RATE)
        source = AudioSource("file", [0], str(path))
        recording = Recording(f"{split}-{i}", [source], RATE, n, n / RATE)
        text = " ".join(draw.choices(WORDS, k=draw.choice([1, 2])))
        segment = SupervisionSegment(f"{split}-{i}", f"{split}-{i}", 0.0, n / RATE, text=text, language="en")
        cuts.append(MonoCut(f"{split}-{i}", 0.0, n / RATE, 0, [segment], recording=recording))
    manifest = folder / f"{split}.jsonl.gz"
    CutSet.from_cuts(cuts).to_file(manifest)
    return manifest


CONFIG = """
seed: 5
normalizer: basic
data: {{train: {train}, dev: {dev}, batch_duration_s: 8, buckets: 3, workers: 2}}
features: {{sample_rate_hz: 8000, n_mels: 20}}
model:
  encoder: {{layers: 1, dim: 16, heads: 2, feed_forward: 32, dropout: 0.1}}
  decoder: {{layers: 1, heads: 2, feed_forward: 32, dropout: 0.1}}
augment: {{speeds: [0.9, 1.0, 1.1], join: 0.3, join_max_s: 4, time_masks: 2, freq_masks: 1, freq_mask_bins: 5}}
loss: {{guided_attention_weight: 0.5, guided_attention_decay_steps: 20}}
optimizer: {{lr: 1e-3, warmup_steps: 5}}
trainer:
  max_epochs: 3
  precision: fp32
  device: cpu
  validate_every_steps: 10
  save_every_steps: 4
  step_log: true
  plot_utterances: 1
"""


def command(config: Path, out: Path) -> list[str]:
    return [sys.executable, "-m", "asr", "train", str(config), f"out={out}"]


def run(config: Path, out: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command(config, out), capture_output=True, text=True, timeout=300, check=False)


def steps(out: Path) -> dict[int, set[tuple[str, ...]]]:
    """All that was logged of each step; a step done twice must have come out the same."""
    found: dict[int, set[tuple[str, ...]]] = {}
    for line in (out / "steps.jsonl").read_text().splitlines():
        row = json.loads(line)
        found.setdefault(row["batch"], set()).add((str(row["epoch"]), row["loss"], *row["ids"]))
    return found


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("corpus")
    train, dev = corpus(folder, "train", 40, 1), corpus(folder, "dev", 4, 2)
    path = folder / "run.yaml"
    path.write_text(CONFIG.format(train=train, dev=dev) + "out: unused\n")
    return path


@pytest.fixture(scope="module")
def whole(config: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("whole") / "run"
    done = run(config, out)
    assert done.returncode == 0, done.stderr
    return out


def test_a_run_leaves_what_it_promises(whole: Path) -> None:
    load_model_folder(whole / "model")
    for name in ("run.json", "learning_curves.png", "experiment.yaml", "dropped.tsv", "logs/metrics.csv"):
        assert (whole / name).stat().st_size >= 0
    assert list((whole / "plots").glob("*.png"))
    manifest = json.loads((whole / "run.json").read_text())
    assert manifest["utterances_seen"] == 3 * 40
    assert manifest["share_of_utterances"]["speed"] > 0.3
    assert manifest["share_of_batches_masked"] == 1.0
    epochs = [
        sorted(i for row in steps(whole).values() for (e, _, *ids) in row if e == str(k) for i in ids) for k in range(3)
    ]
    assert epochs[0] == epochs[1] == epochs[2]
    assert len(epochs[0]) == len(set(epochs[0])) == 40


@pytest.mark.parametrize("kill_after", [3, 11])
def test_a_killed_run_goes_on_bit_for_bit(config: Path, whole: Path, tmp_path: Path, kill_after: int) -> None:
    out = tmp_path / "run"
    process = subprocess.Popen(command(config, out), stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    log = out / "steps.jsonl"
    deadline = time.monotonic() + 200
    while process.poll() is None and time.monotonic() < deadline:
        if log.exists() and log.read_bytes().count(b"\n") >= kill_after:
            break
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()
    torn = sorted((out / "states").glob("*.safetensors")) if (out / "states").exists() else []
    if len(torn) > 1:  # a damaged last state is named, and the one before is used
        torn[-1].write_bytes(torn[-1].read_bytes()[:-50])
    done = run(config, out)
    assert done.returncode == 0, done.stderr
    if len(torn) > 1:
        assert torn[-1].name in done.stderr
    assert steps(out) == steps(whole)


def test_another_configuration_in_the_same_folder_is_refused(config: Path, whole: Path) -> None:
    done = subprocess.run(
        [*command(config, whole), "optimizer.lr=0.5"], capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 2
    assert "optimizer.lr" in done.stderr
    assert "Traceback" not in done.stderr
