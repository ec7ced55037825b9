"""House rules checked on the syntax trees: the direction of imports, and the only places of dangerous calls."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1] / "asr"
FILES = sorted(ROOT.rglob("*.py"))

# Which of our modules may import which: each lists the modules below it.
BASE = {"errors", "files", "progress"}
ROOMS = {
    "errors": set(),
    "progress": set(),
    "machine": {"errors"},
    "_decoder": set(),
    "files": {"errors"},
    "config": BASE | {"tasks", "text"},
    "tasks": {"errors"},
    "text": {"errors", "text"},
    "audio": BASE | {"_decoder", "audio"},
    "resampling": set(),
    "tokenizer": BASE | {"tasks", "tokenizer"},
    "metrics": BASE | {"text"},
    "scoring": BASE | {"tasks", "text", "metrics", "scoring"},
    "report": BASE | {"report", "metrics", "scoring", "audio", "data", "features", "pictures", "resampling"},
    "pictures": {"files"},
    "lengths": set(),
    "features": {"config", "lengths"},
    "losses": {"lengths"},
    "compaction": set(),
    "model": {"compaction", "features", "config", "lengths", "model", "phrases"},
    "phrases": {"errors", "files", "phrases"},
    "decode": BASE | {"compaction", "decode", "lengths", "phrases"},
    "lm": BASE | {"lm", "decode", "checkpoint", "pretrained", "scoring", "text", "tokenizer"},
    "checkpoint": BASE | {"config", "model", "tokenizer"},
    "pretrained": BASE | {"pretrained", "config", "model", "tokenizer", "checkpoint", "tasks"},
    "data": BASE
    | {"config", "data", "audio", "resampling", "features", "losses", "text", "tokenizer", "phrases", "tasks"},
    "transcript": set(),
    "evidence": {"model"},
    "guards": {"config", "evidence", "lengths"},
    "recognizer": BASE
    | {
        *("evidence", "guards", "align", "frames", "words", "transcript", "config", "checkpoint", "decode", "model"),
        *("tokenizer", "audio", "resampling", "text", "windows", "data", "phrases", "recognizer", "tasks"),
    },
    "windows": set(),
    "vad": BASE | {"checkpoint", "resampling"},
    "loading": BASE | {"machine", "pretrained", "config", "checkpoint", "model", "recognizer", "vad"},
    "words": {"transcript"},
    "pauses": set(),
    "align": BASE | {"transcript", "words", "pauses", "tokenizer", "model", "lengths", "losses"},
    "frames": {"align", "transcript", "words", "tokenizer", "model"},
    "subtitles": BASE | {"transcript", "text", "words"},
    "writers": BASE | {"transcript", "subtitles"},
    "subtitling": BASE
    | {"subtitling", "audio", "features", "pictures", "resampling", "subtitles", "text", "windows", "words"},
    "runs": BASE | {"config", "text", "tasks", "scoring"},
    "evaluate": BASE | {"transcript", "recognizer", "scoring", "data", "tasks", "config"},
    "tuning": BASE | {"evaluate", "recognizer", "scoring", "data", "tasks", "config"},
    "corpus": BASE
    | {"corpus", "transcript", "recognizer", "loading", "writers", "data", "checkpoint", "pretrained", "model"},
    "ablation": BASE
    | {"ablation", "config", "checkpoint", "data", "losses", "model", "recognizer", "evaluate", "scoring", "training"}
    | {"machine", "pictures"},
    "training": BASE
    | {"training", "machine", "config", "checkpoint", "pretrained", "model", "data", "losses", "features", "recognizer"}
    | {"scoring", "tokenizer", "pictures", "decode", "lengths", "metrics", "text", "lm", "tasks"},
}
LIGHTNING = {"training", "data"}


def room(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return parts[0]


def imported(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names if node.module == "asr")


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_run_one_way(path: Path) -> None:
    here = room(path)
    if here in ("cli", "__init__", "__main__"):
        return
    for name in imported(path):
        if name.startswith("asr.") and name.count("."):
            assert name.split(".")[1] in ROOMS[here], f"{path.name} imports {name}"
        if name.split(".")[0] == "lightning":
            assert here in LIGHTNING, f"{path.name} imports lightning"
        assert name.split(".")[0] != "typer", f"{path.name} imports typer"


def calls(path: Path) -> Iterator[tuple[str, ast.Call]]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call):
            yield ast.unparse(node.func), node


FORBIDDEN = {"eval", "exec", "torch.load", "torch.save", "pickle.load", "pickle.loads", "torchaudio.load", "os.system"}


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_dangerous_calls_are_made_in_one_place_only(path: Path) -> None:
    for name, call in calls(path):
        if name == "torch.load" and path == ROOT / "pretrained" / "pickled.py":
            assert {k.arg: ast.unparse(k.value) for k in call.keywords}["weights_only"] == "True", (
                "torch.load would run pickled code"
            )
            continue
        assert name not in FORBIDDEN, f"{path.name} calls {name}"
        assert not name.endswith((".extractall", ".load_audio")), f"{path.name} calls {name}"
        assert not any(k.arg == "shell" for k in call.keywords), f"{path.name} passes shell="
        writes = any(k.arg == "mode" and ast.unparse(k.value) == "'w'" for k in call.keywords)
        files = () if writes else ("sf.SoundFile", "soundfile.SoundFile")
        if name in ("sf.read", "soundfile.read", "librosa.load", *files):
            assert path.name == "_decoder.py", f"{path.name} reads audio without open_audio"
        if name in ("load_model", "safe_open", "load_file"):
            assert path.name == "checkpoint.py", f"{path.name} reads weights without asr.checkpoint"
    names = set(imported(path))
    assert "tarfile" not in names or room(path) == "files", f"{path.name} reads a tar file without asr.files"
    assert not names & {"pickle", "marshal", "shelve", "dill", "joblib"}, f"{path.name} imports {names}"
