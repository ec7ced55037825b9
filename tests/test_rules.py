"""House rules checked on the syntax trees: the direction of imports, the only places of dangerous calls, and that
build.py chooses the variants of a model.
"""

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
    "processes": {"errors"},
    "files": {"errors", "files"},
    "config": BASE | {"config", "tasks", "text"},
    "tasks": {"errors"},
    "text": {"errors", "text"},
    "audio": BASE | {"audio"},
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
    | {"config", "data", "audio", "resampling", "features", "losses", "text", "tokenizer", "phrases", "tasks"}
    | {"lengths"},
    "transcript": set(),
    "evidence": {"model"},
    "guards": {"config", "evidence", "lengths"},
    "recognizer": BASE
    | {
        *("evidence", "guards", "align", "frames", "words", "transcript", "config", "checkpoint", "decode", "model"),
        *("tokenizer", "audio", "resampling", "text", "windows", "data", "phrases", "recognizer", "tasks", "lengths"),
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
    | {"subtitling", "audio", "features", "pictures", "resampling", "subtitles", "tasks", "text", "windows", "words"}
    | {"processes"},
    "runs": BASE | {"config", "text", "tasks", "scoring"},
    "evaluate": BASE | {"transcript", "recognizer", "scoring", "data", "tasks", "config"},
    "tuning": BASE | {"evaluate", "recognizer", "scoring", "data", "tasks", "config"},
    "corpus": BASE
    | {"corpus", "transcript", "recognizer", "loading", "writers", "data", "checkpoint", "pretrained", "model"}
    | {"processes"},
    "ablation": BASE
    | {"ablation", "config", "checkpoint", "data", "losses", "model", "recognizer", "evaluate", "scoring", "training"}
    | {"machine", "pictures"},
    "cli": BASE
    | {"cli", "__version__", "ablation", "config", "corpus", "data", "evaluate", "lm", "loading", "model", "pretrained"}
    | {"recognizer", "report", "runs", "scoring", "subtitles", "subtitling", "tasks", "text", "training", "transcript"}
    | {"machine", "tuning", "vad", "writers"},
    "__init__": {"loading", "recognizer", "scoring"},
    "__main__": {"cli"},
    "training": BASE
    | {"training", "machine", "config", "checkpoint", "pretrained", "model", "data", "losses", "features", "recognizer"}
    | {"scoring", "tokenizer", "pictures", "decode", "lengths", "metrics", "text", "lm", "tasks"},
}
LIGHTNING = {"training", "data"}


def room(path: Path) -> str:
    return path.relative_to(ROOT).with_suffix("").parts[0]


def imported(path: Path, tree: ast.Module) -> Iterator[tuple[str, str]]:
    """Yield what a file calls each thing that it imports, and its full name."""
    package = ("asr", *path.relative_to(ROOT).parent.parts)
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.asname or alias.name, alias.name
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else ()
            for alias in node.names:
                yield alias.asname or alias.name, ".".join([*above, *filter(None, [node.module]), alias.name])


def wrong_imports(path: Path, source: str) -> Iterator[str]:
    here = room(path)
    for _, name in imported(path, ast.parse(source)):
        top, _, rest = name.partition(".")
        if top == "asr" and rest.partition(".")[0] not in ROOMS[here]:
            yield name
        if top == "lightning" and here not in LIGHTNING:
            yield name
        if top == "typer" and here != "cli":
            yield name
        if name == "importlib.import_module" and here != "__init__":
            yield name


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_run_one_way(path: Path) -> None:
    assert list(wrong_imports(path, path.read_text(encoding="utf-8"))) == []


@pytest.mark.parametrize(
    ("place", "source", "wrong"),
    [
        ("model/x.py", "from ..recognizer import Recognizer", ["asr.recognizer.Recognizer"]),
        ("model/x.py", "from .. import recognizer", ["asr.recognizer"]),
        ("model/x.py", "def f():\n    import asr.recognizer as r", ["asr.recognizer"]),
        ("model/x.py", "from asr import load_model", ["asr.load_model"]),
        ("model/x.py", "import asr", ["asr"]),
        ("model/x.py", "from . import layers\nfrom .layers import Norm\nfrom ..config import Config", []),
        ("words.py", "from . import model", ["asr.model"]),
        ("cli/x.py", "from asr import decode\nimport lightning.pytorch", ["asr.decode", "lightning.pytorch"]),
        ("cli/x.py", "import typer\nfrom . import options", []),
        ("data/x.py", "from typer import Option", ["typer.Option"]),
    ],
)
def test_every_way_to_import_from_above_is_found(place: str, source: str, wrong: list[str]) -> None:
    assert list(wrong_imports(ROOT / place, source)) == wrong


# Names that may be used in one file only, or nowhere.
FORBIDDEN = {
    *("eval", "exec", "__import__", "os.system", "os.popen", "subprocess.getoutput", "subprocess.getstatusoutput"),
    *("torch.load", "torch.save", "torch.jit.load", "torch.hub.load", "torch.serialization.load", "torchaudio.load"),
    *("yaml.unsafe_load", "yaml.unsafe_load_all", "yaml.full_load", "yaml.UnsafeLoader", "yaml.FullLoader"),
}
ONLY_IN = {
    "torch.load": "pretrained/pickled.py",
    **dict.fromkeys(("soundfile.read", "soundfile.blocks", "soundfile.SoundFile", "librosa.load"), "audio/program.py"),
    **dict.fromkeys(("safetensors.safe_open", "safetensors.torch.load_model"), "checkpoint.py"),
    **dict.fromkeys(("safetensors.torch.load_file", "safetensors.torch.load"), "checkpoint.py"),
}
PICKLES = {"pickle", "_pickle", "cPickle", "marshal", "shelve", "dill", "cloudpickle", "joblib", "builtins"}


def dangers(path: Path, source: str) -> Iterator[str]:
    """Yield the names of dangerous functions that a file uses where it may not, by whatever name it imports them."""
    tree, place = ast.parse(source), str(path.relative_to(ROOT))
    full: dict[str, set[str]] = {}
    for name, whole in imported(path, tree):
        full.setdefault(name, set()).add(whole)
        top = whole.partition(".")[0]
        if top in PICKLES or whole.endswith(".*") or (top == "tarfile" and room(path) != "files"):
            yield whole
    writers = {
        id(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call) and _keyword(node, "mode") == "'w'"
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            shell, pickled = _keyword(node, "shell"), _keyword(node, "allow_pickle")
            yield from ["shell="] * (shell is not None) + ["allow_pickle="] * (pickled not in (None, "False"))
        elif isinstance(node, (ast.Name, ast.Attribute)):
            first, dot, rest = ast.unparse(node).partition(".")
            for name in {f"{whole}{dot}{rest}" for whole in full.get(first, {first})}:
                allowed = ONLY_IN.get(name) == place or (name == "soundfile.SoundFile" and id(node) in writers)
                if (name in FORBIDDEN or name in ONLY_IN) and not allowed:
                    yield name
                if name.endswith((".extractall", ".load_audio")) and not name.startswith("asr."):
                    yield name


def _keyword(call: ast.Call, name: str) -> str | None:
    return next((ast.unparse(keyword.value) for keyword in call.keywords if keyword.arg == name), None)


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_dangerous_calls_are_made_in_one_place_only(path: Path) -> None:
    assert list(dangers(path, path.read_text(encoding="utf-8"))) == []


def test_pickles_are_loaded_as_weights_only() -> None:
    tree = ast.parse((ROOT / ONLY_IN["torch.load"]).read_text(encoding="utf-8"))
    uses = [node for node in ast.walk(tree) if isinstance(node, ast.Attribute) and ast.unparse(node) == "torch.load"]
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call) and node.func in uses]
    assert len(calls) == len(uses) > 0
    assert all(_keyword(call, "weights_only") == "True" for call in calls)


@pytest.mark.parametrize(
    ("source", "wrong"),
    [
        ("from torch import load\nload(p)", ["torch.load"]),
        ("from os import system as run\nrun(p)", ["os.system"]),
        ("import torch as t\nread = t.load", ["torch.load"]),
        ("import torch.serialization\ntorch.serialization.load(p)", ["torch.serialization.load"]),
        ("from torch import *", ["torch.*"]),
        ("from pickle import loads", ["pickle.loads"]),
        ("import subprocess\nsubprocess.run(p, shell=True)", ["shell="]),
        ("def f():\n    import soundfile as sf\n    sf.read(p)", ["soundfile.read"]),
        ("import soundfile\nsoundfile.SoundFile(p, mode='w')\nsoundfile.write(p, x)", []),
        ("import soundfile\nsoundfile.SoundFile(p)", ["soundfile.SoundFile"]),
        ("from safetensors.torch import load_file as weights\nweights(p)", ["safetensors.torch.load_file"]),
        ("from tarfile import TarFile", ["tarfile.TarFile"]),
        ("archive.extractall(p)", ["archive.extractall"]),
        ("import numpy as np\nnp.load(p, allow_pickle=True)\nnp.load(p, allow_pickle=False)", ["allow_pickle="]),
        ("model.eval()\nexec('1')\nwindow.load(p)", ["exec"]),
    ],
)
def test_every_name_of_a_dangerous_call_is_found(source: str, wrong: list[str]) -> None:
    assert list(dangers(ROOT / "model" / "x.py", source)) == wrong


# The conditions of the network on something of its own, which are not variants that asr/model/build.py could choose.
OWN_CONDITIONS = {
    "cache.py: self.length": "changes from step to step",
    "layers.py: self.training": "dropout and statistics differ in training",
    "layers.py: self.share == 0.0": "nothing is dropped in evaluation",
    "norms.py: not self.training": "dropout and statistics differ in training",
    "position.py: len(self.table_TD) < T": "the table grows with the longest sequence",
    "precision.py: self.bias is None": "torch's layers are taken as they are",
    "rows.py: self._padded": "depends on the batch",
}


def own_conditions(source: str) -> Iterator[str]:
    """Yield what methods, except constructors, decide by an attribute of `self`."""
    methods = (
        method
        for kind in ast.walk(ast.parse(source))
        if isinstance(kind, ast.ClassDef)
        for method in kind.body
        if isinstance(method, ast.FunctionDef) and method.name != "__init__"
    )
    for node in (node for method in methods for node in ast.walk(method)):
        if isinstance(node, (ast.If, ast.IfExp, ast.While)):
            conditions = [node.test]
        else:
            conditions = [node.subject] if isinstance(node, ast.Match) else getattr(node, "ifs", [])
        for condition in conditions:
            if any(isinstance(n, ast.Attribute) and ast.unparse(n.value) == "self" for n in ast.walk(condition)):
                yield ast.unparse(condition)


def test_the_network_chooses_no_variant_while_it_runs() -> None:
    network = [path for path in FILES if room(path) == "model"]
    found = {f"{path.name}: {test}" for path in network for test in own_conditions(path.read_text(encoding="utf-8"))}
    assert found == set(OWN_CONDITIONS)


@pytest.mark.parametrize(
    ("body", "found"),
    [
        ("if self.causal: pass", ["self.causal"]),
        ("return a if not self.config.scaled else b", ["not self.config.scaled"]),
        ("return [f(x) for x in xs if x and self.kind == 'x']", ["x and self.kind == 'x'"]),
        ("match self.kind:\n            case 1: pass", ["self.kind"]),
        ("while self.left > 0: pass", ["self.left > 0"]),
        ("return self.score(x) if x is not None else self.other", []),
    ],
)
def test_every_condition_on_an_own_attribute_is_found(body: str, found: list[str]) -> None:
    source = "class A:\n    def __init__(self):\n        if self.a: pass\n    def step(self, x):\n        " + body
    assert list(own_conditions(source)) == found
