"""Whole models of every kind of layer and norm: batching, caching, low precision, gradients and refused options."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from models import noises, small_model
from synthetic import experiment, experiment_file, speech_data, untrained
from torch import Tensor

from asr.checkpoint import ModelFolder, load_model_folder, save_model_folder
from asr.config import ModelFolderConfig, WhisperFeaturesConfig
from asr.config import validate as validated
from asr.data.batch import pad_audio
from asr.errors import ConfigError
from asr.model.precision import set_precision
from asr.recognizer import Recognizer
from asr.training.start import starting_point
from asr.training.task import SpeechTask

KINDS = [
    {"normalization": "rms"},
    {"normalization": "batch"},
    {"normalization": "batch", "norm": "post"},
    {"normalization": "power"},
    {"layer": "conformer"},
    {"layer": "conformer", "kernel": 31, "normalization": "batch"},
    {"layer": "conformer", "normalization": "power"},
    {"layer": "lstm"},
    {"layer": "lstm", "norm": "none"},
    {"layer": "lstm", "norm": "post", "normalization": "rms"},
]
each_kind = pytest.mark.parametrize("encoder", KINDS, ids=lambda kind: "-".join(map(str, kind.values())))


def of_kind(encoder: dict[str, Any], **options: Any) -> ModelFolder:
    """Return a model with the same norms in encoder and decoder and their running statistics from noise."""
    decoder = {"normalization": encoder.get("normalization", "layer")}
    parts = small_model(encoder=encoder, decoder=decoder, **options)
    for weight in parts.model.parameters():
        weight.data /= 2 if weight.dim() > 1 else 1  # large weights amplify rounding
    parts.model.train()
    for _ in range(2):
        memory = parts.model.encode(*pad_audio(noises(1.0, 0.4, 0.7, seed=3)))
        parts.model.decoder(torch.randint(3, 9, (3, 6)), memory, None, torch.tensor([6, 2, 4]))
    parts.model.eval()
    return parts


def same(found: Tensor, expected: Tensor) -> None:
    """Check equality up to rounding; without norms, or with statistics that still lag, states can be large."""
    torch.testing.assert_close(found, expected, atol=1e-5 * max(1.0, float(expected.abs().max())), rtol=0)


@each_kind
@torch.inference_mode()
def test_encoder_output_does_not_depend_on_the_batch(encoder: dict[str, Any]) -> None:
    model, audio = of_kind(encoder).model, noises(1.0, 0.4, 0.05, 0.7)
    audio_BN, len_B = pad_audio(audio)
    for extra in (0, 801, 16_000):
        together = model.encode(torch.nn.functional.pad(audio_BN, (0, extra)), len_B)
        for b, own in enumerate(audio):
            alone = model.encode(*pad_audio([own]))
            states_TD = together.states_BTD[b, : int(together.len_B[b])]
            same(states_TD, alone.states_BTD[0])


@each_kind
@torch.inference_mode()
def test_padding_keep_encodes_the_silence_of_the_window(encoder: dict[str, Any]) -> None:
    window = WhisperFeaturesConfig(sample_rate_hz=8000, n_mels=20, window_s=4.0)
    model = of_kind({**encoder, "padding": "keep"}, features=window).model
    together, alone = model.encode(*pad_audio(noises(1.0, 0.4))), model.encode(*pad_audio(noises(1.0, 0.4)[1:]))
    assert together.states_BTD.shape[1] == 50  # frames of 80 ms
    same(together.states_BTD[1:], alone.states_BTD)


@pytest.mark.parametrize("normalization", ["rms", "batch", "power"])
@torch.inference_mode()
def test_decoding_step_by_step_equals_teacher_forcing(normalization: str) -> None:
    model = of_kind({"normalization": normalization}).model
    memory, tokens_BL = model.encode(*pad_audio(noises(1.0, 0.4))), torch.randint(3, 9, (2, 7))
    expected = model.decoder(tokens_BL, memory)[0].log_softmax(-1)
    state = model.decoder.start(memory)
    for i in range(7):
        found, state = model.decoder.step(tokens_BL[:, i : i + 1], state)
        torch.testing.assert_close(found, expected[:, i], atol=1e-4, rtol=0)


@each_kind
@pytest.mark.parametrize("precision", ["bfloat16", "int8"])
def test_low_precision_output_is_close_to_exact(encoder: dict[str, Any], precision: str) -> None:
    exact, cheap = of_kind(encoder), of_kind(encoder)
    set_precision(cheap.model, precision)
    audio_BN, len_B = pad_audio(noises(1.0, 0.7))
    with torch.inference_mode():
        states = [parts.model.encode(audio_BN, len_B).states_BTD.float() for parts in (exact, cheap)]
    changed = (states[1] - states[0]).norm()
    assert changed < 0.1 * states[0].norm()
    assert changed > 0 or encoder.get("layer") == "lstm"  # int8 leaves it in float32 where bfloat16 is slow
    assert all(best[0].tokens for best in Recognizer(of_kind(encoder), precision=precision).decode(audio_BN, len_B))


@each_kind
def test_model_folder_round_trip_is_exact(encoder: dict[str, Any], tmp_path: Path) -> None:
    parts = of_kind(encoder)
    save_model_folder(tmp_path, parts)
    again = load_model_folder(tmp_path)
    assert again.config == parts.config
    before, after = parts.model.state_dict(), again.model.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)


# ---- training -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return experiment_file(tmp_path_factory.mktemp("corpus"), train=8, dev=2)


@each_kind
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_every_weight_gets_a_finite_nonzero_gradient(path: Path, encoder: dict[str, Any], precision: str) -> None:
    chosen = [f"model.encoder.{name}={value}" for name, value in encoder.items()]
    config = experiment(path, *chosen, f"model.decoder.normalization={encoder.get('normalization', 'layer')}")
    parts = untrained(config)
    task, batch = SpeechTask(parts, config), speech_data(config, parts).largest_batch()
    with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
        task.combine(task.losses(batch), batch).backward()
    for name, weight in parts.model.named_parameters():
        assert weight.grad is not None, name
        assert weight.grad.isfinite().all(), name
        assert weight.grad.any(), name


# ---- refused options ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("encoder", "line"),
    [
        ("{layer: conformer, kernel: 14}", "kernel=14 must be odd"),
        ("{layer: conformer, norm: post}", "norm=post is not for layer=conformer"),
        ("{norm: none}", "norm=none is for layer=lstm"),
        ("{kernel: 31}", "kernel is for layer=conformer: layer=transformer has no convolution"),
        ("{keep_s: 1}", "keep_s is for padding=recall: padding=mask remembers no silence"),
        ("{padding: keep, keep_s: 1}", "keep_s is for padding=recall: padding=keep remembers no silence"),
        ("{clip: 8}", "clip is for position=shaw: position=sinusoidal has no farthest distance"),
        ("{layer: conformer, norm: none}", "norm=none is for layer=lstm"),
        ("{layer: lstm, scaled: true}", "not layer=lstm"),
        ("{layer: lstm, first_position: 2}", "not layer=lstm"),
        ("{layer: lstm, dim: 15}", "must be even"),
        ("{layer: gru}", "'transformer', 'conformer' or 'lstm'"),
        ("{normalization: group}", "'layer', 'rms', 'batch' or 'power'"),
    ],
)
def test_inconsistent_encoder_options_are_refused(path: Path, encoder: str, line: str) -> None:
    with pytest.raises(ConfigError, match=line) as caught:
        experiment(path, f"model.encoder={encoder}")
    assert str(caught.value).isprintable()


@pytest.mark.parametrize("layer", ["conformer", "lstm"])
def test_recall_padding_is_refused_for_other_layers(path: Path, tmp_path: Path, layer: str) -> None:
    window = ("features.kind=whisper", "features.window_s=5", f"model.encoder.layer={layer}")
    line = rf"padding=recall is for layer=transformer: layer={layer} needs all frames"
    with pytest.raises(ConfigError, match=line):
        experiment(path, *window, "model.encoder.padding=recall")
    save_model_folder(tmp_path, untrained(experiment(path, *window)))
    own = path.with_name("own.yaml")
    head, _, rest = path.read_text().partition("features:")
    own.write_text(head + "augment:" + rest.partition("augment:")[2])
    with pytest.raises(ConfigError, match=line):
        starting_point(experiment(own, f"init={tmp_path}", "adapt.padding=recall"))


def test_lstm_encoder_has_no_attention_or_positions(path: Path) -> None:
    config = experiment(path, "model.encoder.layer=lstm", "model.encoder.heads=3", "model.decoder.heads=2")
    encoder = untrained(config).model.eval().encoder
    assert not any("attention" in name or "position" in name for name, _ in encoder.named_parameters())
    x_ND: Tensor = torch.randn(5, 16)
    assert validated(ModelFolderConfig, {"model": config.model.model_dump()}, "").model == config.model
    assert torch.equal(encoder.position(x_ND), x_ND)
