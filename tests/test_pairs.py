"""Every pair of methods builds, takes an optimizer step and decodes, or is refused with a one-line reason."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from synthetic import experiment, experiment_file, speech_data, untrained

from asr.config import ExperimentConfig
from asr.data.batch import Batch
from asr.errors import ConfigError
from asr.training.task import SpeechTask

pytestmark = pytest.mark.filterwarnings("ignore:.*length cap")
_LAYERS = "layers: 1, heads: 2, feed_forward: 32, dropout: 0.0"
_BASE = (
    "loss.guided_attention.weight=0",
    "decode.max_tokens_per_s=4",
    "augment.join=0",
    f"model.decoder={{{_LAYERS}}}",
)
# The values of one key are alternatives, so they are not paired with each other.
METHODS: dict[str, tuple[str, ...]] = {
    "model.encoder.norm": ("post",),
    "model.decoder.norm": ("post",),
    "model.encoder.normalization": ("rms", "batch", "power"),
    "model.decoder.normalization": ("rms", "batch", "power"),
    "model.encoder.layer": ("conformer", "lstm"),
    "model.encoder.position": ("none", "learned", "shaw", "transformer_xl", "rotary"),
    "model.decoder.position": ("none", "sinusoidal", "shaw", "transformer_xl", "rotary"),
    "model.encoder.score": ("additive",),
    "model.decoder.score": ("additive",),
    "model.encoder.attention_dropout": ("0.1",),
    "model.decoder.attention_dropout": ("0.1",),
    "model.encoder.window": ("{left: 4, right: 2}",),
    "model.encoder.chunk": ("{frames: 4, left: 1}",),
    "model.encoder.subsampling": ("{kind: conv2d, channels: 4}", "{kind: glu}", "{factor: 2}", "{factor: 8}"),
    "model.decoder": (
        "{kind: none}",
        "{kind: transducer, dim: 8, joiner: 8}",
        "{kind: transducer, predictor: convolution, dim: 8, joiner: 8}",
        f"{{kind: mask_predict, {_LAYERS}}}",
        f"{{kind: mask_ctc, {_LAYERS}}}",
    ),
    "model.decoder.pointer": ("{}",),
    "data.phrases": ("{rare_below: 1000, distractors: [0, 3]}",),
    "loss.ctc_weight": ("0",),
    "loss.label_smoothing": ("0",),
    "loss.guided_attention": ("{weight: 1}",),
    "loss.scheduled_sampling": ("{share: 0.5, schedule: constant}",),
    "loss.minimum_error": ("{kind: n_best, weight: 0.1, n_best: 2}", "{kind: self_critical, weight: 0.1, n_best: 2}"),
    "loss.r_drop": ("1",),
    "loss.cr_ctc": ("0.1",),
    "augment.token_noise": ("0.1",),
    "optimizer.kind": ("sgd", "adagrad", "rmsprop", "adam"),
    "optimizer.schedule": ("constant", "plateau"),
    "decode.ctc_weight": ("0.5",),
    "decode.temperature": ("0.7",),
}
CHOICES = [(key, value) for key, values in METHODS.items() for value in values]


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return experiment_file(tmp_path_factory.mktemp("corpus"), train=4, dev=1)


@pytest.fixture(scope="module")
def batch(path: Path) -> Batch:
    config = experiment(path, *_BASE)
    data = speech_data(config, untrained(config))
    return data.dev_batch(list(data.train_cuts)[:2])


def configured(path: Path, *choices: tuple[str, str]) -> ExperimentConfig:
    """Apply choices, whole parts before their keys; a pointer gets phrase lists, and no CTC loss means no CTC head."""
    told = sorted(f"{key}={value}" for key, value in choices)
    if ("model.decoder.pointer", "{}") in choices and not any(key == "data.phrases" for key, _ in choices):
        told.append(f"data.phrases={METHODS['data.phrases'][0]}")
    if ("loss.ctc_weight", "0") in choices:
        told.append("model.ctc=false")
    return experiment(path, *_BASE, *told)


def steps_and_decodes(config: ExperimentConfig, batch: Batch) -> None:
    parts = untrained(config)
    if config.data.phrases is not None:
        data = speech_data(config, parts)
        batch = data.dev_batch(list(data.train_cuts)[:2])
    task = SpeechTask(parts, config)
    optimizer = task.configure_optimizers()["optimizer"]
    loss = task.combine(task.losses(batch), batch)
    loss.backward()
    assert math.isfinite(loss.item())
    weights = [w for w in task.parameters() if w.requires_grad]
    assert all(w.grad is None or bool(w.grad.isfinite().all()) for w in weights)
    optimizer.step()
    assert all(bool(w.isfinite().all()) for w in weights)
    task.eval()
    with torch.no_grad():
        found = task.recognizer.decode(batch.audio_BN, batch.audio_len_B, batch.languages)
    assert [len(hypotheses) for hypotheses in found] == [1] * len(batch.ids)


def refusal(path: Path, batch: Batch, *choices: tuple[str, str]) -> str | None:
    """Return the message with which the choices are refused, None if they work together."""
    try:
        steps_and_decodes(configured(path, *choices), batch)
    except ConfigError as refused:
        return str(refused)
    return None


@pytest.mark.parametrize("choice", CHOICES, ids=lambda choice: f"{choice[0]}={choice[1]}".replace(" ", ""))
def test_every_pair_works_or_is_refused_with_a_reason(choice: tuple[str, str], path: Path, batch: Batch) -> None:
    if choice[0] != "data.phrases":  # only a pointer reads them
        steps_and_decodes(configured(path, choice), batch)
    for other in CHOICES[CHOICES.index(choice) + 1 :]:
        if other[0] == choice[0]:
            continue
        if line := refusal(path, batch, choice, other):
            assert "\n" not in line
            assert len(line) > 20
