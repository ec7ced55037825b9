"""The Python interface: `from asr import load_model, score`."""

from __future__ import annotations

import re
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile as sf
from models import noises, small_model

from asr.checkpoint import save_model_folder
from asr.config import DecodeConfig, DecodeKeys

ROOT = Path(__file__).parents[1]
RUN: dict[str, Any] = {"capture_output": True, "text": True, "timeout": 120, "check": False}
# Strict about the caller and the types it sees of asr; asr's dependencies are skipped, as they take 15 s.
STRICT = """
[mypy]
strict = true
cache_dir = /dev/null
[mypy-asr.*]
follow_imports = silent
[mypy-torch.*,torchaudio.*,numpy.*,pydantic.*,lhotse.*]
follow_imports = skip
"""
RIGHT = """
from asr import load_model, score

model = load_model("whisper-tiny.en", beam_size=5)
reveal_type(model.transcribe("talk.mp3", language="en", words=True))
reveal_type(score("ref.txt", "hyp.txt"))
"""
WRONG = """
from asr import load_model, scor

model = load_model("whisper-tiny.en", beam_siz=5)
model.transcribe("talk.mp3", langage="en")
load_model("whisper-tiny.en", beam_size="5")
"""


def mypy(folder: Path, code: str) -> list[str]:
    """Return the lines that mypy prints on a caller's code."""
    (folder / "strict.ini").write_text(STRICT)
    (folder / "caller.py").write_text(code)
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--config-file", "strict.ini", "caller.py"],
        cwd=folder,
        env={"MYPYPATH": str(ROOT)},
        **RUN,
    )
    return done.stdout.splitlines()


def test_type_checker_infers_results_and_finds_misspelt_options(tmp_path: Path) -> None:
    talk, scored, end = mypy(tmp_path, RIGHT)
    assert talk.endswith('Revealed type is "asr.transcript.Transcript"')
    assert scored.endswith('Revealed type is "asr.scoring.report.ScoreReport"')
    assert end == "Success: no issues found in 1 source file"
    errors = [line for line in mypy(tmp_path, WRONG) if " error: " in line]
    for line, expected in zip(errors, ('no attribute "scor"', '"beam_siz"', '"langage"', '"beam_size"'), strict=True):
        assert expected in line


def test_load_model_options_are_the_keys_of_decode() -> None:
    assert DecodeKeys.__annotations__.keys() == DecodeConfig.model_fields.keys()


def test_importing_asr_does_not_load_torch_numpy_or_pydantic() -> None:
    code = "import sys, asr; print({name.partition('.')[0] for name in sys.modules} - {*sys.stdlib_module_names})"
    done = subprocess.run([sys.executable, "-I", "-c", f"import sys; sys.path.append({str(ROOT)!r}); {code}"], **RUN)
    assert "asr" in done.stdout
    assert not {"torch", "numpy", "pydantic"} & set(done.stdout.split("'"))


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder, with the files and the model that the docs use."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ASR_CACHE", str(tmp_path / "cache"))
    save_model_folder(tmp_path / "cache" / "models" / "whisper-small", small_model(["en", "fr"]))
    (tmp_path / "calls").mkdir()
    for name in ("talk.mp3", "calls/a.wav"):
        sf.write(tmp_path / name, noises(1.0)[0].numpy(), 8000, format="WAV")
    for name in ("ref.txt", "hyp.txt"):
        (tmp_path / name).write_text("hello world\n")
    return tmp_path


@pytest.mark.usefixtures("folder")
@pytest.mark.filterwarnings("ignore:.*length cap")
def test_readme_example_runs(capsys: pytest.CaptureFixture[str]) -> None:
    _, shown = (ROOT / "README.md").read_text(encoding="utf-8").split("In Python:\n\n", 1)
    code = textwrap.dedent(shown[: shown.index("\n\n`")]).replace("Asterisk", "hello")  # spelt with the model's letters
    exec(compile(code, "README.md", "exec"), {"samples": np.repeat(noises(1.0)[0].numpy(), 6)})
    assert capsys.readouterr().out.count("WER") == 2


@pytest.mark.usefixtures("folder")
@pytest.mark.filterwarnings("ignore:.*length cap")
def test_examples_on_the_python_page_run(capsys: pytest.CaptureFixture[str]) -> None:
    shown, names = (ROOT / "docs" / "python.md").read_text(encoding="utf-8"), dict[str, Any]()
    for code in re.findall(r"^    .*\n(?:\n?    .*\n)*", shown, re.MULTILINE):
        exec(compile(textwrap.dedent(code), "docs/python.md", "exec"), names)
    assert "missing.mp3: " in capsys.readouterr().out
