"""The network of silero-vad: with the package's weights it gives the package's probabilities."""

from __future__ import annotations

import math
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor

from asr import vad
from asr.errors import CheckpointError
from asr.vad import SileroVAD, SpeechDetector, load_detector
from asr.windows import SpeechWindows

PACKAGE = find_spec("silero_vad")  # not imported, which would set the number of threads
needs_weights = pytest.mark.skipif(PACKAGE is None, reason="silero-vad is not installed")


def vowels(rate: int = 16000) -> Tensor:
    """Return two seconds of a voice gliding from vowel to vowel, between seconds of near silence."""
    t_N = torch.arange(2 * rate) / rate
    pitch_N = 120 + 20 * torch.sin(2 * math.pi * 0.8 * t_N)
    phase_N = 2 * math.pi * pitch_N.cumsum(0) / rate
    voice_N = torch.zeros(2 * rate)
    for harmonic in range(1, 25):
        frequency_N = pitch_N * harmonic
        formants = (
            (600 + 200 * torch.sin(2 * math.pi * 2.5 * t_N), 90.0),
            (1400 + 500 * torch.sin(2 * math.pi * 1.7 * t_N), 120.0),
        )
        gain_N = sum(1 / (1 + ((frequency_N - centre_N) / width) ** 2) for centre_N, width in formants)
        voice_N += gain_N * torch.sin(harmonic * phase_N) / harmonic**0.5
    voice_N *= 0.1 * (0.6 + 0.4 * torch.sin(2 * math.pi * 4 * t_N))  # four syllables a second
    noise_N = torch.randn(4 * rate, generator=torch.Generator().manual_seed(0)) * 1e-3
    return F.pad(voice_N, (rate, rate)) + noise_N


def probabilities(detector: SpeechDetector, audio_N: Tensor, block: int = 100_000) -> Tensor:
    return torch.cat(list(detector(audio_N.split(block))))


@needs_weights
def test_network_matches_the_packages_model(monkeypatch: pytest.MonkeyPatch) -> None:
    """The package's own program is run frame by frame, and its weights are loaded into our module."""
    monkeypatch.setattr(vad, "CHUNK_T", 20)
    assert PACKAGE is not None
    assert PACKAGE.origin is not None
    program = torch.jit.load(Path(PACKAGE.origin).parent / "data" / "silero_vad.jit")
    theirs, ours = program.state_dict(), SileroVAD()
    names = {"stft_conv.weight": "stft.forward_basis_buffer"}
    names |= {
        f"conv{i + 1}.{kind}": f"encoder.{i}.reparam_conv.{kind}" for i in range(4) for kind in ("weight", "bias")
    }
    names |= {f"lstm.{kind}_{x}h_l0": f"decoder.rnn.{kind}_{x}h" for kind in ("weight", "bias") for x in "ih"}
    names |= {f"final_conv.{kind}": f"decoder.decoder.2.{kind}" for kind in ("weight", "bias")}
    ours.load_state_dict({name: theirs[f"_model.{other}"] for name, other in names.items()})
    audio_N = vowels()[: 16000 * 3 + 77]
    with torch.no_grad():
        expected = [program(frame_N, 16000).item() for frame_N in F.pad(audio_N, (0, -len(audio_N) % 512)).split(512)]
    got_T = probabilities(SpeechDetector(ours.eval(), 16000), audio_N)
    torch.testing.assert_close(got_T, torch.tensor(expected), rtol=0, atol=1e-4)
    assert 0.2 < (got_T > 0.5).float().mean() < 0.9, "there must be frames with and without speech"


@needs_weights
@pytest.mark.parametrize("rate", [16000, 8000, 44100])
def test_voice_is_found_at_its_true_position(rate: int) -> None:
    threads = torch.get_num_threads()
    (window,) = SpeechWindows(rate, 30.0, load_detector(rate), pad_s=0.0)(vowels(rate).split(7777))
    assert window.start_s == pytest.approx(1.0, abs=0.25)
    assert window.start_s + len(window.samples_N) / rate == pytest.approx(3.0, abs=0.25)
    assert torch.get_num_threads() == threads


@needs_weights
def test_noise_hum_and_silence_are_not_speech() -> None:
    noise_N = torch.randn(160_000, generator=torch.Generator().manual_seed(0))
    hum_N = torch.sin(torch.arange(160_000) * 2 * math.pi * 50 / 16000)
    for audio_N in (noise_N * 0.1, noise_N * 1e-3, hum_N * 0.3, torch.zeros(160_000)):
        assert list(SpeechWindows(16000, 30.0, load_detector(16000))(audio_N.split(9999))) == []


def test_probabilities_do_not_depend_on_block_boundaries(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    detector = SpeechDetector(SileroVAD().eval(), 16000)
    monkeypatch.setattr(vad, "CHUNK_T", 20)
    audio_N = vowels()[: 16000 + 77]
    one_T, many_T = (probabilities(detector, audio_N, block) for block in (20_000, 333))
    assert torch.equal(one_T, many_T)
    assert len(one_T) == math.ceil(len(audio_N) / 512)
    monkeypatch.setattr(vad, "CHUNK_T", 512)
    torch.testing.assert_close(probabilities(detector, audio_N), one_T, rtol=0, atol=1e-6)


def test_missing_package_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vad, "find_spec", lambda name: None)
    with pytest.raises(CheckpointError, match=r"needs the package silero-vad; pip install 'silero-vad>="):
        load_detector(16000)


def test_missing_foreign_or_truncated_weights_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "data" / "silero_vad_16k.safetensors"
    path.parent.mkdir()
    monkeypatch.setattr(vad, "find_spec", lambda name: SimpleNamespace(origin=str(tmp_path / "__init__.py")))
    with pytest.raises(CheckpointError, match=r"silero_vad_16k\.safetensors: cannot be read"):
        load_detector(16000)
    save_file({"conv1.weight": torch.zeros(3)}, path)
    with pytest.raises(CheckpointError, match=r"silero_vad_16k\.safetensors: not the weights of silero-vad"):
        load_detector(16000)
    path.write_bytes(path.read_bytes()[:-4])
    with pytest.raises(CheckpointError, match=r"silero_vad_16k\.safetensors: cut off, or not a safetensors file"):
        load_detector(16000)
