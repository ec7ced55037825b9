"""Malicious, damaged or foreign weights: each is refused in one line; nothing is executed or written."""

from __future__ import annotations

import io
import json
import pickle
import shutil
import struct
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from audit import audited, expect_refused
from foreign import hf_whisper, openai_content
from hostile import CANARY, PICKLE
from safetensors.torch import load_file, save_file
from vocabularies import whisper_json

from asr.checkpoint import load_tensors
from asr.errors import CheckpointError
from asr.pretrained import import_model
from asr.pretrained.pickled import load_pickled

# Limits the address space to 1 GiB more than torch itself takes, so that a huge allocation raises MemoryError.
SETUP = """
import resource, tempfile
from pathlib import Path
from asr.pretrained import import_model

def act(path):
    out = Path(tempfile.mkdtemp()) if path.stem == "good" else Path()
    import_model(path, out / "out")
    if path.name == "good.pt":
        used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + (1 << 30), -1))
"""


class Runs:
    """An object that pickle turns into a call."""

    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        self.call = function, arguments

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return self.call


class Tensors(pickle.Pickler):
    """Pickles storages as torch.save does, by key and size."""

    def persistent_id(self, obj: Any) -> Any:
        return obj.key if isinstance(obj, Storage) else None


class Storage:
    def __init__(self, size: int) -> None:
        self.key = ("storage", torch.FloatStorage, "0", "cpu", size)


def index(content: Any, protocol: int = 2) -> bytes:
    file = io.BytesIO()
    Tensors(file, protocol).dump(content)
    return file.getvalue()


def torch_file(index: bytes, data: bytes = bytes(64), packing: int = zipfile.ZIP_STORED) -> bytes:
    """Return a file in torch's format with this index and one storage."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", packing) as archive:
        for name, value in {"data.pkl": index, "byteorder": b"little", "data/0": data, "version": b"3\n"}.items():
            archive.writestr(f"archive/{name}", value)
    return file.getvalue()


def tensor(stored: int, shape: tuple[int, ...], stride: tuple[int, ...]) -> Runs:
    return Runs(torch._utils._rebuild_tensor_v2, Storage(stored), 0, shape, stride, False, OrderedDict())


def weights(shape: tuple[int, ...], stride: tuple[int, ...], stored: int = 16) -> bytes:
    dims = {"n_mels": 80}
    return index({"dims": dims, "model_state_dict": {"encoder.conv1.weight": tensor(stored, shape, stride)}})


def saved(content: Any, **options: Any) -> bytes:
    file = io.BytesIO()
    torch.save(content, file, **options)
    return file.getvalue()


def pickles(good: dict[str, Any]) -> Iterator[tuple[str, bytes, str]]:
    """Yield contents of `.pt` files by name, each with a pattern for the line that refuses it."""
    import os

    shell = Runs(os.system, f"touch {CANARY}")
    whole, name = saved(good), r"wants to use \S*{}, which no weights need"
    yield "system", torch_file(PICKLE), name.format("system")
    yield "reduce", torch_file(index({"dims": shell})), name.format("system")
    yield "stack", torch_file(index({"dims": shell}, protocol=4)), name.format("STACK_GLOBAL")
    yield "object", torch_file(b"(S'x'\ni__builtin__\nexec\n."), name.format("exec")
    yield "bytes", torch_file(index(Runs(bytearray, 1 << 40))), name.format("bytearray")
    yield "class", torch_file(index(Runs(torch.FloatTensor, 1 << 40))), name.format("FloatTensor")
    yield "parameter", torch_file(index(torch.nn.Parameter)), name.format("Parameter")
    yield "whole-model", saved(torch.nn.Linear(2, 2)), name.format("Linear")
    yield "huge", torch_file(weights((1 << 20, 1 << 20), (1 << 20, 1), 1 << 40)), "larger than the file"
    yield "beyond", torch_file(weights((1 << 30,), (1,))), "larger than the file"
    yield "spread", torch_file(weights((1 << 20, 1 << 20), (0, 0))), "larger than the file"
    yield "past-end", torch_file(weights((100,), (1,), 100), bytes(64)), "torn"
    yield "packed", torch_file(weights((4,), (1,)), packing=zipfile.ZIP_DEFLATED), "not in the format of torch.save"
    yield "old", saved(good, _use_new_zipfile_serialization=False), "not in the format of torch.save"
    yield "cut", whole[: len(whole) // 2], "cut off"
    yield "torn", torch_file(index({"dims": 1})[:-3]), "torn"
    yield "nested", torch_file(b"\x80\x02" + b"]" * 100_000 + b"a" * 99_999 + b"."), "torn|not OpenAI's Whisper"
    yield "plain", PICKLE, "cut off, or not in the format"
    yield "empty", b"", "cut off, or not in the format"
    yield "zip", _zip(), "not in the format of torch.save"
    yield "list", saved([1, 2]), "not OpenAI's Whisper: it has no dims"
    yield "tensor", saved(torch.zeros(3)), "not OpenAI's Whisper: it has no dims"
    yield "bare", saved(good["model_state_dict"]), "not OpenAI's Whisper: it has no dims"
    yield "no-weights", saved({"dims": good["dims"], "model_state_dict": {"a": 1}}), "does not hold weights"
    yield "numbered", saved(good | {"model_state_dict": {1: torch.zeros(3)}}), "does not hold weights by name"
    yield "listed", saved(good | {"dims": [1, 2]}), "not OpenAI's Whisper: dims: "
    yield "bad-dims", saved(good | {"dims": good["dims"] | {"n_vocab": -1}}), "not OpenAI's Whisper: dims: n_vocab: "
    yield "many-layers", saved(good | {"dims": good["dims"] | {"n_text_layer": 60_000}}), "decoder.layers"
    yield "wide", saved(good | {"dims": good["dims"] | {"n_text_state": 64}}), "of different widths"
    yield "vocabulary", saved(good | {"dims": good["dims"] | {"n_vocab": 51865}}), "does not fit these weights of 51865"
    state = dict(good["model_state_dict"])
    yield "adapter", saved(good | {"model_state_dict": state | {"lora": state["decoder.ln.bias"]}}), "such as 'lora'"
    integers = {name: value.int() for name, value in state.items()}
    yield "integers", saved(good | {"model_state_dict": integers}), "in place of floating point"
    shifted = {"encoder.positional_embedding": state["encoder.positional_embedding"] + 1}
    yield "positions", saved(good | {"model_state_dict": state | shifted}), "not Whisper's sinusoids"
    del state["decoder.ln.bias"]
    yield "missing", saved(good | {"model_state_dict": state}), r"'decoder\.ln\.bias' is missing"


def _zip() -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("a", b"b")
    return file.getvalue()


def folders(good: Path) -> Iterator[tuple[str, Callable[[Path], None], str]]:
    """Yield ways to damage a good Hugging Face folder, each with a pattern for the line that refuses it."""
    content = (good / "model.safetensors").read_bytes()
    settings = json.loads((good / "config.json").read_text())
    name = "model.safetensors"

    conv = "model.encoder.conv1.weight"

    def config(**changed: Any) -> Callable[[Path], None]:
        return lambda folder: _put(folder / "config.json", json.dumps(settings | changed).encode())

    def index(files: dict[str, str]) -> Callable[[Path], None]:
        return lambda folder: (
            _put(folder / "model.safetensors.index.json", json.dumps({"weight_map": files}).encode()),
            (folder / name).rename(folder / "model-1.safetensors"),
        )

    lists_much = (
        struct.pack("<Q", 200) + b'{"a":{"dtype":"F32","shape":[1099511627776],"data_offsets":[0,4398046511104]}}'
    )
    yield "cut", lambda folder: _put(folder / name, content[: len(content) // 2]), "cut off"
    yield "cut-by-one", lambda folder: _put(folder / name, content[:-1]), "cut off"
    yield "empty", lambda folder: _put(folder / name, b""), "not a safetensors file, or cut off"
    yield "text", lambda folder: _put(folder / name, b"<html>404</html>" * 9), "not a safetensors file, or cut off"
    yield "long-header", lambda folder: _put(folder / name, b"\xff" * 16), "not a safetensors file, or cut off"
    yield "declares-much", lambda folder: _put(folder / name, lists_much.ljust(300)), "cut off, or not a safetensors"
    yield "no-weights", lambda folder: (folder / name).unlink(), "there are no weights: model.safetensors is missing"
    yield "bert", config(model_type="bert"), "model_type 'bert'; known are whisper and speech_to_text"
    yield "wav2vec2", config(model_type="wav2vec2\n\x1b[31m"), r"model_type 'wav2vec2\\n"
    yield "no-type", config(model_type=None), "neither a model_type nor model.bin"
    yield "no-json", lambda folder: _put(folder / "config.json", b"{"), r"config\.json: "
    yield "deep-json", lambda folder: _put(folder / "config.json", b"[" * 100_000), r"config\.json: "
    yield "large-json", lambda folder: _put(folder / "config.json", b" " * (65 << 20)), "far too large"
    yield "no-size", config(d_model="wide"), "d_model: "
    yield "wide", config(d_model=65_536), "sinusoids"
    yield "deep", config(decoder_layers=256), r"'model\.decoder\.layers\.2\..*' is missing"
    yield "too-deep", config(encoder_layers=10**9), "encoder_layers: "
    yield "odd", config(encoder_attention_heads=5), r"config\.json: not Whisper's settings: 'model\.encoder'"
    yield "activation", config(activation_function="swish"), "'model.activation'"
    yield "few-layers", config(encoder_layers=1), "of them, such as 'model.encoder.layers.1."
    yield "words", config(vocab_size=900_000), "far fewer"
    yield "start", config(decoder_start_token_id=0), "begin with token 259, those of the weights with 0"
    yield "few-words", config(vocab_size=1700), "vocabulary of 1770 tokens does not fit"
    yield (
        "no-vocabulary",
        lambda folder: (folder / "tokenizer.json").unlink(),
        r"tokenizer\.json: there is no such file",
    )
    yield "vocabulary", lambda folder: _put(folder / "tokenizer.json", b"{}"), r"tokenizer\.json: model"
    yield (
        "outside",
        index({conv: "../good/model.safetensors"}),
        "is no name of a safetensors file",
    )
    yield "other-file", index({conv: "weights.pkl"}), "is no name of a safetensors file"
    yield (
        "lost-shard",
        index({conv: "model-2.safetensors"}),
        "model-2.safetensors: cannot be read",
    )
    yield "lost-tensor", index({"another": "model-1.safetensors"}), "model-1.safetensors: 'another' is missing"
    yield "no-list", index({}), r"index\.json: weight_map"
    yield (
        "suppressed",
        lambda folder: _put(folder / "generation_config.json", b'{"suppress_tokens": [-1]}'),
        r"generation_config\.json: suppress_tokens",
    )
    yield (
        "pickle",
        lambda folder: ((folder / name).unlink(), _put(folder / "pytorch_model.bin", torch_file(PICKLE))),
        r"pytorch_model\.bin: wants to use",
    )
    yield (
        "pickled-dims",
        lambda folder: ((folder / name).unlink(), _put(folder / "pytorch_model.bin", saved({"a": {"b": 1}}))),
        "does not hold weights",
    )


def _put(path: Path, content: bytes) -> None:
    path.write_bytes(content)


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a good Hugging Face folder, a good `.pt`, and a vocabulary for every `.pt` in it."""
    folder = tmp_path_factory.mktemp("hostile")
    theirs = hf_whisper(folder / "good", encoder_ffn_dim=128, decoder_ffn_dim=128)
    torch.save(openai_content(theirs), folder / "good.pt")
    (folder / "tokenizer.json").write_text(whisper_json())
    return folder


def test_hostile_weights_are_refused_without_side_effects(good: Path) -> None:
    cases = []
    for name, content, pattern in pickles(torch.load(good / "good.pt", weights_only=True)):
        (good / f"{name}.pt").write_bytes(content)
        cases.append((good / f"{name}.pt", pattern))
    for name, harm, pattern in folders(good / "good"):
        shutil.copytree(good / "good", good / name)
        harm(good / name)
        cases.append((good / name, pattern))
    report = audited(SETUP, [path for path, _ in cases], warm_up=[good / "good", good / "good.pt"])
    expect_refused(report, cases)


def test_hostile_pickle_does_run_when_python_loads_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Loaded with Python's own pickle, the file does run its command, so refusing it means something."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "x.pt").write_bytes(torch_file(PICKLE))
    with zipfile.ZipFile(tmp_path / "x.pt") as archive:
        pickle.loads(archive.read("archive/data.pkl"))
    assert (tmp_path / CANARY).exists()


def test_self_referential_pickle_is_loaded(tmp_path: Path) -> None:
    endless: list[Any] = [1]
    endless.append(endless)
    (tmp_path / "x.pt").write_bytes(torch_file(index(endless)))
    content = load_pickled(tmp_path / "x.pt")
    assert content[1] is content


def test_many_tensors_that_share_storage_are_refused(tmp_path: Path) -> None:
    """A small file whose tensors all share one storage must not fill a large model."""
    numbers = torch.zeros(1 << 16)
    torch.save({str(i): numbers[:] for i in range(2)}, tmp_path / "x.pt")  # two names for one storage are allowed
    assert load_pickled(tmp_path / "x.pt").keys() == {"0", "1"}
    torch.save({str(i): numbers[:] for i in range(3)}, tmp_path / "x.pt")
    with pytest.raises(CheckpointError, match="larger than the file"):
        load_pickled(tmp_path / "x.pt")


def test_tensors_of_safetensors_and_pickles_stay_on_disk(tmp_path: Path) -> None:
    save_file({"a": torch.arange(5.0)}, tmp_path / "x.safetensors")
    torch.save({"a": torch.arange(5.0)}, tmp_path / "x.pt")
    for load, name in ((load_tensors, "x.safetensors"), (load_pickled, "x.pt")):
        tensors = load(tmp_path / name)
        assert tensors["a"].tolist() == [0, 1, 2, 3, 4]
        assert str(tmp_path / name) in Path("/proc/self/maps").read_text(), "the tensors must stay on disk until used"
    assert load_file(tmp_path / "x.safetensors").keys() == {"a"}


def test_importing_a_model_folder_is_refused(tmp_path: Path, good: Path) -> None:
    import_model(good / "good", tmp_path / "ours")
    with pytest.raises(CheckpointError, match="is a model folder already"):
        import_model(tmp_path / "ours", tmp_path / "again")
    assert not (tmp_path / "again").exists()
