"""Mistakes on the command line: one clear line on stderr, no traceback, exit status 2; and the help texts."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import soundfile as sf
import torch
from command import asr
from models import RATE, noises, small_model, whisper_folder
from synthetic import CONFIG, cut, manifest
from typer.main import get_command

from asr.checkpoint import save_model_folder
from asr.cli import app


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A model folder."""
    save_model_folder(tmp_path / "small", small_model())
    return tmp_path / "small"


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["evaluate", "a.jsonl"], "asr: missing option '--model' (see 'asr evaluate --help')"),
        (["transcribe", "--model", "m"], "asr: missing argument 'inputs' (see 'asr transcribe --help')"),
        (["transcribe", "a", "--modle", "m"], "no such option: --modle"),
        (["transcribe", "a", "--model"], "'--model'"),
        (["transcribe", "a", "--model", "m", "--beam-size", "0"], "'--beam-size'"),
        (["transcribe", "a", "--model", "m", "--beam-size", "wide"], "'--beam-size'"),
        (["transcribe", "a", "--model", "m", "--ctc-weight", "1.5"], "'--ctc-weight'"),
        (["transcribe", "a", "--line-length", "1"], "'--line-length'"),
        (["subtitles", "a", "--spoken", "cs", "--out", "b", "--pad", "-1"], "'--pad'"),
        (["subtitles", "a", "--spoken", "cs", "--out", "b", "--min-speech", "2"], "'--min-speech'"),
        # checked before the model is looked up
        (["tune", "a", "--model", "m", "--grid", "beam_size=1", "--batch-seconds", "many"], "'--batch-seconds'"),
        (["evaluate", "a", "--model", "m", "--batch-seconds", "many"], "'--batch-seconds'"),
        (["transcrib", "a"], "'transcribe'"),
        (["evaluate"], "missing argument 'cuts'"),
        (["score", "a"], "missing argument 'hypothesis'"),
        (["score", "a", "b", "--form", "jsonl"], "'ids', 'lines'"),
        (["train"], "missing argument 'config'"),
        (["config", "shema"], "'schema'"),
    ],
)
def test_usage_errors_are_one_line_with_status_2(words: list[str], says: str) -> None:
    done = asr(*words)
    assert (done.status, done.out, len(done.err)) == (2, "", 1)
    assert done.err[0].startswith("asr: ")
    assert says in done.err[0]
    assert done.err[0].endswith("--help')")
    assert done.err[0].isprintable()


def mistakes(folder: Path, model: Path) -> dict[str, tuple[list[object], str]]:
    """Return commands with invalid input, by name, each with a part of its error line."""
    wav, ref, file = folder / "a.wav", folder / "ref.txt", folder / "file"
    sf.write(wav, noises(0.3)[0].numpy() * 0.2, RATE)
    ref.write_text("hello\n")
    file.write_text("x")
    save_model_folder(folder / "no-ctc", small_model(ctc=False))
    save_model_folder(folder / "run" / "model", small_model(["en", "es"]))
    lost = manifest(folder / "lost.jsonl", [cut("c1", 1.0, path=folder / "lost.wav")])
    experiment = folder / "run.yaml"
    experiment.write_text(CONFIG.format(folder=folder, train="no-train.jsonl", dev="dev.jsonl"))
    whisper = whisper_folder(folder / "ct2", without="decoder/embeddings/weight")
    spoken = ["transcribe", wav, "--model"]
    return {
        "no model": ([*spoken, folder / "none"], f"{folder}/none: no model folder"),
        "run for model": ([*spoken, folder / "run"], f"did you mean {folder}/run/model?"),
        "file for model": ([*spoken, wav], "no model folder"),
        "format": ([*spoken, model, "--format", "doc"], "unknown format 'doc': known are txt, json, srt, vtt, tsv"),
        "no format": ([*spoken, model, "--format", ","], "no format"),
        "output": ([*spoken, model, "--out", file], f"{file}: is a file, not a folder"),
        "output below a file": ([*spoken, model, "--out", file / "x"], f"{file}/x: Not a directory"),
        "language": ([*spoken, folder / "run" / "model", "--language", "xx"], "this model knows en, es"),
        "wide beam": ([*spoken, model, "--beam-size", 10**9], "options of the search: 'beam_size': "),
        "no CTC head": ([*spoken, folder / "no-ctc", "--ctc-weight", "0.3"], "decode.ctc_weight (--ctc-weight): this"),
        "device": ([*spoken, model, "--device", "tpu"], "device tpu: "),
        "GPU": ([*spoken, model, "--device", "cuda:1"], "device cuda:1: torch finds no GPU here"),
        "no manifest": (["evaluate", folder / "none.jsonl", "--model", model], "none.jsonl: no such manifest"),
        "no cuts": (["evaluate", ref, "--model", model], "ref.txt: not a manifest"),
        "lost audio": (["evaluate", lost, "--model", model], "no cut can be read; c1: "),
        "no such language": (
            ["evaluate", lost, "--model", model, "--language", "fr"],
            "no cuts in fr: there are 1 in",
        ),
        "no noise": (["evaluate", lost, "--model", model, "--snr", "5"], "asr: --snr needs --noise FOLDER"),
        "normalizer": (["evaluate", lost, "--model", model, "--normalizer", "basik"], "did you mean 'basic'"),
        "no reference": (["score", folder / "none", ref], "none: cannot be read: No such file"),
        "metric": (["score", ref, ref, "--metric", "wear"], "did you mean 'wer'"),
        "no metric": (["score", ref, ref, "--metric", ""], "no metric"),
        "no run": (["average", folder / "none"], "no training states"),
        "no whisper": (
            ["import", folder, folder / "out"],
            "no CTranslate2 (model.bin) or Hugging Face",
        ),
        "half a whisper": (["import", whisper, folder / "out"], "'decoder/embeddings/weight' is missing"),
        "no experiment": (["train", folder / "none.yaml"], "none.yaml: no such file"),
        "unknown key": (["train", experiment, "model.encoder.laye=2"], "did you mean 'model.encoder.layer'"),
        "wrong type": (["train", experiment, "optimizer.lr=fast"], "'optimizer.lr'"),
        "no override": (["train", experiment, "optimizer.lr"], "overrides look like"),
        "no data": (["train", experiment], "no-train.jsonl: no such manifest"),
    }


def test_input_errors_are_one_line_with_status_2(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    for name, (words, says) in mistakes(tmp_path, model).items():
        done = asr(*words)
        assert (done.status, done.out, len(done.err)) == (2, "", 1), f"{name}: {done}"
        assert done.err[0].startswith("asr: "), name
        assert says in done.err[0], name
        assert done.err[0].isprintable(), name


# --- help ---------------------------------------------------------------------------------------------


def commands(command: Any, name: str = "") -> Iterator[str]:
    """Yield a command and all its subcommands as they are typed after `asr`."""
    yield name
    for part, below in getattr(command, "commands", {}).items():
        yield from commands(below, f"{name} {part}".strip())


COMMANDS = list(commands(get_command(app)))


def test_every_command_is_found() -> None:
    assert {"", "train", "transcribe", "lm", "lm train", "config schema", "import"} <= set(COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_help_has_an_example_and_shows_no_type_for_flags(command: str) -> None:
    done = asr(*command.split(), "--help")
    shown = " ".join(done.out.split())
    assert (done.status, done.err) == (0, [])
    assert re.search(rf"Example: ([^|]* \| )?asr {command}", shown)
    assert "<bool>" not in shown


@pytest.mark.parametrize("command", ["", "config"])
def test_command_group_without_subcommand_shows_help(command: str) -> None:
    done = asr(*command.split())
    assert done.status == 2
    assert "Usage:" in done.out + "".join(done.err)


def test_score_report_and_help_do_not_import_torch(tmp_path: Path) -> None:
    (tmp_path / "ref").write_text("hello world\n")
    code = (
        "import sys; from asr.cli import main\n"
        "try: main()\n"
        "except SystemExit as e: print(e.code, sys.modules.keys() & {'torch', WITHOUT}, file=sys.stderr)"
    )
    for words, without in (
        (["score", "ref", "ref"], "jinja2"),
        (["--help"], "jinja2"),
        (["report", "ref", "ref", "--out", "page"], "lhotse"),
    ):
        done = subprocess.run(
            [sys.executable, "-c", code.replace("WITHOUT", repr(without)), *words],
            capture_output=True,
            text=True,
            cwd=tmp_path,
            timeout=60,
            check=False,
        )
        assert done.stderr == "0 set()\n"


def test_closed_pipe_causes_no_traceback(tmp_path: Path) -> None:
    command = f"{sys.executable} -m asr config schema | head -c 1"
    done = subprocess.run(
        ["bash", "-c", command], capture_output=True, text=True, cwd=tmp_path, timeout=60, check=False
    )
    assert (done.stdout, done.stderr) == ("{", "")
