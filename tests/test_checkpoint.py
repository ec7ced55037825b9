"""Model folders and training states: what is written comes back, and nothing hostile runs."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from asr.checkpoint import ModelFolder, average_weights, load_model_folder, load_state, save_model_folder, save_state
from asr.config import EncoderConfig, LogMelConfig, ModelConfig, ModelFolderConfig
from asr.errors import AsrError, CheckpointError
from asr.model.build import build_model
from asr.tokenizer import CharacterTokenizer


def parts() -> ModelFolder:
    torch.manual_seed(0)
    tokenizer = CharacterTokenizer.train(["hello world"])
    model = ModelConfig(encoder=EncoderConfig(layers=1, dim=16, heads=2, feed_forward=16), decoder={"heads": 2})
    config = ModelFolderConfig(features=LogMelConfig(n_mels=8), model=model)
    return ModelFolder(config, build_model(config.features, model, tokenizer.vocab_size).eval(), tokenizer)


def test_a_model_folder_comes_back_the_same(tmp_path: Path) -> None:
    before = parts()
    save_model_folder(tmp_path / "m", before)
    after = load_model_folder(tmp_path / "m")
    assert after.config == before.config
    assert after.tokenizer.encode("hello") == before.tokenizer.encode("hello")
    audio, n = torch.randn(1, 8000), torch.tensor([8000])
    assert torch.equal(before.model.encode(audio, n).states_BTD, after.model.encode(audio, n).states_BTD)
    assert after.model.decoder.output.weight is after.model.decoder.embedding.weight


def test_a_state_comes_back_the_same(tmp_path: Path) -> None:
    shared = torch.randn(3, 4)
    tree = {
        "a": {0: shared, 1: {"again": shared, "none": None}},
        "b": [1, 2.5, True, "text", (1, (2, "x"))],
        "half": torch.randn(2).bfloat16(),
        "empty": torch.empty(0),
        "scalar": torch.tensor(3),
        "large": 2**70,
        "infinite": float("inf"),
    }
    save_state(tmp_path / "s.safetensors", tree)
    back = load_state(tmp_path / "s.safetensors")
    assert back["b"] == tree["b"]
    assert back["large"] == tree["large"]
    assert back["infinite"] == tree["infinite"]
    assert list(back["a"]) == [0, 1]
    for got, expected in (
        (back["a"][0], shared),
        (back["a"][1]["again"], shared),
        (back["half"], tree["half"]),
        (back["empty"], tree["empty"]),
        (back["scalar"], tree["scalar"]),
    ):
        assert got.dtype == expected.dtype
        assert torch.equal(got, expected)


def test_a_state_refuses_what_is_not_plain(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="plain values"):
        save_state(tmp_path / "s.safetensors", {"x": object()})
    assert list(tmp_path.iterdir()) == []


def test_every_flipped_byte_and_every_cut_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "s.safetensors"
    save_state(path, {"w": torch.arange(64.0), "step": 7})
    whole = path.read_bytes()
    for at in range(len(whole) - 200, len(whole), 9):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        with pytest.raises(CheckpointError, match="damaged"):
            load_state(path)
    for size in (0, 4, 8, 20, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:size])
        with pytest.raises(CheckpointError):
            load_state(path)


class Bomb:
    def __reduce__(self) -> tuple[Callable[[str], object], tuple[str]]:
        return (__import__("os").system, ("touch exploded",))


def _hostile() -> dict[str, Callable[[Path], object]]:
    """Ten ways to spoil the weights of a model folder."""
    weights = "model.safetensors"
    return {
        "pickle": lambda d: (d / weights).write_bytes(pickle.dumps(Bomb())),
        "torch file": lambda d: torch.save({"x": Bomb()}, d / weights),
        "empty": lambda d: (d / weights).write_bytes(b""),
        "cut off": lambda d: (d / weights).write_bytes((d / weights).read_bytes()[:-100]),
        "long header": lambda d: (d / weights).write_bytes((2**62).to_bytes(8, "little") + b"{}"),
        "header of 90 MB": lambda d: (d / weights).write_bytes((90_000_000).to_bytes(8, "little") + b"{}"),
        "header is no JSON": lambda d: (d / weights).write_bytes((4).to_bytes(8, "little") + b"(((("),
        "wrong names": lambda d: save_file({"x": torch.zeros(3)}, d / weights),
        "directory": lambda d: ((d / weights).unlink(), (d / weights).mkdir()),
        "tensor beyond the file": lambda d: (d / weights).write_bytes(
            len(h := json.dumps({"a": {"dtype": "F32", "shape": [9], "data_offsets": [0, 36]}}).encode()).to_bytes(
                8, "little"
            )
            + h
        ),
    }


@pytest.mark.parametrize("name", _hostile())
def test_hostile_weights_are_one_line_and_run_nothing(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    save_model_folder(tmp_path / "m", parts())
    _hostile()[name](tmp_path / "m")
    with pytest.raises(AsrError) as caught:
        load_model_folder(tmp_path / "m")
    assert "\n" not in str(caught.value)
    assert "model.safetensors" in str(caught.value)
    assert not (tmp_path / "exploded").exists()


def test_a_folder_that_is_none_says_so(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no model folder"):
        load_model_folder(tmp_path)
    save_model_folder(tmp_path / "model", parts())
    with pytest.raises(CheckpointError, match="did you mean"):
        load_model_folder(tmp_path)


def test_average_weights() -> None:
    states = [
        {"w": torch.tensor([1.0, 2.0]), "n": torch.tensor(5)},
        {"w": torch.tensor([3.0, 6.0]), "n": torch.tensor(9)},
    ]
    mean = average_weights(states)
    assert mean["w"].tolist() == [2.0, 4.0]
    assert mean["n"].item() == 5
