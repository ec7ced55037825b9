"""Loading a recogniser by name or folder; the caller's options override the model's."""

from __future__ import annotations

from pathlib import Path

import pytest
from models import small_model

import asr as package
from asr.checkpoint import save_model_folder
from asr.config import DecodeConfig, GuardConfig
from asr.errors import ConfigError


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder in which models are found by name."""
    monkeypatch.setenv("ASR_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    return tmp_path / "cache" / "models"


def test_load_model_overrides_the_models_options(cache: Path) -> None:
    save_model_folder(cache / "whisper-tiny.en", small_model(beam_size=2))
    recognizer = package.load_model("whisper-tiny.en")
    assert isinstance(recognizer, package.Recognizer)
    assert recognizer.options.beam_size == 2
    recognizer = package.load_model(cache / "whisper-tiny.en", device="cpu", beam_size=3)
    assert (recognizer.options.beam_size, recognizer.device.type) == (3, "cpu")
    names = cache / "names.txt"
    names.write_text("hello\n")
    own = GuardConfig(enabled=True, wider_beam=1)
    save_model_folder(cache / "guarded", small_model(guards=own))
    assert package.load_model(cache / "guarded", guards={"enabled": False}).options.guards == own.model_copy(
        update={"enabled": False}
    )
    save_model_folder(cache / "listening", small_model(phrases=names, phrase_bonus=2.0))
    assert package.load_model(cache / "listening").options.phrase_bonus == 2.0
    assert package.load_model(cache / "listening", phrases=None).options == DecodeConfig()
    save_model_folder(cache / "weighing", small_model(phrase_bonus=1.0, lm_weight=0.5))  # without effect so far
    assert package.load_model(cache / "weighing").options == DecodeConfig()
    assert package.load_model(cache / "weighing", phrases=names).options.phrase_bonus == 1.0
    save_model_folder(cache / "several", small_model(beam_size=10, n_best=5))
    for beam, left in ((1, 1), (3, 3), (7, 5)):
        assert package.load_model(cache / "several", beam_size=beam).options.n_best == left
    with pytest.raises(ConfigError, match=r"--n-best 5 needs --beam-size 5 or more"):
        package.load_model(cache / "several", beam_size=1, n_best=5)
    save_model_folder(cache / "drawing", small_model(temperature=0.5, top_p=0.9, n_best=5))
    assert package.load_model(cache / "drawing", temperature=1.0).options.n_best == 5
    assert package.load_model(cache / "several", temperature=0.5).options == DecodeConfig(temperature=0.5, n_best=5)
    assert package.load_model(cache / "drawing", temperature=0).options == DecodeConfig()
    for options, says in (
        ({"beam_size": 0}, "'beam_size': "),
        ({"beam": 1}, "unknown key 'beam'"),
        ({"device": "tpu"}, "device tpu: it is auto, cpu, cuda"),
    ):
        with pytest.raises(ConfigError, match=says):
            package.load_model("whisper-tiny.en", **options)
