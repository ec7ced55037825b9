"""Model folders and training states: round trips, damage, and hostile files that must not run code."""

from __future__ import annotations

import io
import json
import os
import pickle
import re
import shutil
import stat
import subprocess
import sys
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from audit import audited, expect_refused
from safetensors.torch import save

from asr.checkpoint import (
    ModelFolder,
    average_weights,
    digest_of,
    load_model_folder,
    load_state,
    save_model_folder,
    save_state,
)
from asr.config import EncoderConfig, LogMelConfig, ModelConfig, ModelFolderConfig
from asr.errors import CheckpointError
from asr.model.build import build_model
from asr.tokenizer import CharacterTokenizer


def parts() -> ModelFolder:
    torch.manual_seed(0)
    tokenizer = CharacterTokenizer.train(["hello world"])
    model = ModelConfig(encoder=EncoderConfig(layers=1, dim=16, heads=2, feed_forward=16), decoder={"heads": 2})
    config = ModelFolderConfig(features=LogMelConfig(n_mels=8), model=model)
    return ModelFolder(config, build_model(config.features, model, tokenizer.vocab_size).eval(), tokenizer)


def test_model_folder_survives_a_round_trip(tmp_path: Path) -> None:
    before = parts()
    save_model_folder(tmp_path / "m", before)
    after = load_model_folder(tmp_path / "m")
    assert after.config == before.config
    assert after.tokenizer.encode("hello") == before.tokenizer.encode("hello")
    audio, n = torch.randn(1, 8000), torch.tensor([8000])
    assert torch.equal(before.model.encode(audio, n).states_BTD, after.model.encode(audio, n).states_BTD)
    assert after.model.decoder.output.weight is after.model.decoder.embedding.weight


def test_digest_covers_all_files_of_a_model_folder_and_no_others(tmp_path: Path) -> None:
    save_model_folder(tmp_path / "a", parts())
    digest = digest_of(tmp_path / "a")
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    (tmp_path / "b" / "hyp.jsonl").write_text("what evaluate leaves there")
    assert digest_of(tmp_path / "b") == digest
    for path in sorted((tmp_path / "a").iterdir()):
        data = path.read_bytes()
        path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
        assert digest_of(tmp_path / "a") != digest, path.name
        path.write_bytes(data)
    assert digest_of(tmp_path / "a") == digest


def test_loading_draws_no_random_numbers_and_imports_no_compiler(tmp_path: Path) -> None:
    save_model_folder(tmp_path / "m", parts())
    program = """
import sys, torch
from pathlib import Path
from asr.checkpoint import load_model_folder
torch.manual_seed(1)
before = torch.get_rng_state()
load_model_folder(Path(sys.argv[1]))
assert torch.equal(torch.get_rng_state(), before), "random weights were drawn although they are replaced"
assert "sympy" not in sys.modules, "torch's compiler was imported, which takes 100 MB and a second"
"""
    done = subprocess.run([sys.executable, "-c", program, tmp_path / "m"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_state_survives_a_round_trip(tmp_path: Path) -> None:
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


def test_state_refuses_values_that_are_not_plain(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="plain values"):
        save_state(tmp_path / "s.safetensors", {"x": object()})
    assert list(tmp_path.iterdir()) == []


def test_tensors_copied_from_a_device_are_all_saved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a GPU: copies are not part of the tree, so one may be given the address of the one before."""
    monkeypatch.setattr(torch.Tensor, "cpu", torch.Tensor.clone)
    tied = torch.full((64,), 9.0)
    tree = {"a": [torch.full((64,), float(i)) for i in range(20)], "b": tied, "c": tied}
    save_state(tmp_path / "state", tree)
    monkeypatch.undo()
    found = load_state(tmp_path / "state")
    assert [float(x[0]) for x in found["a"]] == [float(i) for i in range(20)]
    assert torch.equal(found["b"], tied)
    assert torch.equal(found["c"], tied)


def test_flipped_bits_and_truncations_are_detected(tmp_path: Path) -> None:
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


@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o077, 0o600), (0o002, 0o664)])
def test_permissions_follow_the_umask(tmp_path: Path, umask: int, mode: int) -> None:
    before = os.umask(umask)
    try:
        for _ in range(2):  # the second time over existing files
            save_model_folder(tmp_path / "m", parts())
            save_state(tmp_path / "s" / "s.safetensors", {"w": torch.zeros(3)})
    finally:
        os.umask(before)
    files = [*(tmp_path / "m").iterdir(), *(tmp_path / "s").iterdir()]
    assert {f.name for f in files} == {"characters.json", "config.yaml", "model.safetensors", "s.safetensors"}
    assert {f.name: oct(stat.S_IMODE(f.stat().st_mode)) for f in files} == {f.name: oct(mode) for f in files}


def test_failed_write_names_the_file_and_leaves_nothing(tmp_path: Path) -> None:
    """In a subprocess with a limited file size, which acts like a full disk."""
    code = (
        "import resource, signal, sys, torch\n"
        "from pathlib import Path\n"
        "from asr.checkpoint import save_state\n"
        "from asr.errors import CheckpointError\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))\n"
        "try: save_state(Path('s.safetensors'), {'w': torch.zeros(10_000)})\n"
        "except CheckpointError as e: print(e)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.stderr == ""
    assert done.stdout.startswith("s.safetensors: cannot be written: ")
    assert done.stdout.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_saving_a_model_folder_over_a_file_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(NotADirectoryError, match="is a file, not a folder"):
        save_model_folder(tmp_path / "file", parts())


class Bomb:
    def __reduce__(self) -> tuple[Callable[[str], object], tuple[str]]:
        return (__import__("os").system, ("touch exploded",))


def _header(fields: object, data: bytes = b"") -> bytes:
    header = json.dumps(fields).encode()
    return len(header).to_bytes(8, "little") + header + data


def _hostile_weights() -> dict[str, bytes]:
    """Return contents of files that are named like safetensors files but are none, or broken ones."""
    exploding = io.BytesIO()
    torch.save({"x": Bomb()}, exploding)
    return {
        "pickle": pickle.dumps(Bomb()),
        "torch file": exploding.getvalue(),
        "empty": b"",
        "long header": (2**62).to_bytes(8, "little") + b"{}",
        "header of 90 MB": (90_000_000).to_bytes(8, "little") + b"{}",
        "header is no JSON": (4).to_bytes(8, "little") + b"((((",
        "header is a list": _header([]),
        "deep header": (200_000).to_bytes(8, "little") + b"[" * 200_000,
        "tensor beyond the file": _header({"a": {"dtype": "F32", "shape": [9], "data_offsets": [0, 36]}}),
        "overlapping tensors": _header(
            {name: {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]} for name in "ab"}, bytes(8)
        ),
        "shape that overflows": _header({"a": {"dtype": "F32", "shape": [2**62, 8], "data_offsets": [0, 8]}}, bytes(8)),
        "unknown type": _header({"a": {"dtype": "OBJECT", "shape": [2], "data_offsets": [0, 8]}}, bytes(8)),
    }


def hostile_model_folders(folder: Path) -> list[tuple[Path, str]]:
    """Write model folders with one spoilt file each; return each with a pattern that names that file."""
    save_model_folder(folder / "whole", parts())
    weights = (folder / "whole" / "model.safetensors").read_bytes()
    good, bomb = (folder / "whole" / "config.yaml").read_text(), "!!python/object/apply:os.system ['touch exploded']"
    spoilt: dict[str, dict[str, bytes]] = {"model.safetensors": _hostile_weights()}
    spoilt["model.safetensors"] |= {"cut off": weights[:-100], "wrong names": save({"x": torch.zeros(3)})}
    spoilt["config.yaml"] = {
        "tag": bomb.encode(),
        "tag inside": good.replace("normalizer: none", f"normalizer: {bomb}").encode(),
        "other sizes": good.replace("dim: 16", "dim: 32").encode(),
        "other vocabulary": good.replace("kind: character", "kind: whisper").encode(),
        "pickle config": pickle.dumps(Bomb()),
    }
    spoilt["characters.json"] = {"pickle text": pickle.dumps(Bomb()), "deep": b"[" * 100_000, "list": b"[1, 2]"}
    cases = [(folder / "missing", "missing")]
    for file, contents in spoilt.items():
        for name, content in contents.items():
            shutil.copytree(folder / "whole", folder / name)
            (folder / name / file).write_bytes(content)
            wrong = {"other sizes": "model.safetensors", "other vocabulary": "there is no such file"}.get(name, file)
            cases.append((folder / name, re.escape(wrong)))
    (folder / "directory" / "model.safetensors").mkdir(parents=True)
    for file in ("config.yaml", "characters.json"):
        shutil.copy(folder / "whole" / file, folder / "directory")
    return [*cases, (folder / "directory", r"model\.safetensors")]


def test_hostile_model_folders_give_one_line_errors_and_execute_nothing(tmp_path: Path) -> None:
    cases = hostile_model_folders(tmp_path)
    good = tmp_path / "whole"
    report = audited(
        "from asr.checkpoint import load_model_folder as act", [*(path for path, _ in cases), good], warm_up=[good]
    )
    expect_refused(report, [*cases, (good, "^$")])


def hostile_states(folder: Path) -> list[tuple[Path, str]]:
    """Write files that are no training states or tampered ones; return each with a pattern that names it."""
    tensor = torch.arange(4.0)
    crc = str(zlib.crc32(tensor.numpy().tobytes()))

    def tampered(tree: str, crc: str = crc) -> bytes:
        return save({"0": tensor}, {"tree": tree, "crc32": crc})

    files = _hostile_weights() | {
        "no metadata": save({"0": tensor}),
        "checksum": tampered("{}", "1"),
        "tree is no JSON": tampered("import os"),
        "deep tree": tampered("[" * 100_000),
        "two tags": tampered('{"$map": [], "$tuple": []}'),
        "no such tensor": tampered('{"$map": [["x", {"$tensor": 7}]]}'),
        "list as a key": tampered('{"$map": [[[1], 2]]}'),
        "map of numbers": tampered('{"$map": [1]}'),
        "cut off": tampered('{"$map": []}')[:-3],
    }
    for name, content in files.items():
        (folder / name).write_bytes(content)
    return [(folder / name, re.escape(str(folder / name))) for name in (*files, "missing")]


def test_hostile_states_give_one_line_errors_and_execute_nothing(tmp_path: Path) -> None:
    cases, good = hostile_states(tmp_path), tmp_path / "good"
    save_state(good, {"w": torch.zeros(3)})
    report = audited(
        "from asr.checkpoint import load_state as act", [*(path for path, _ in cases), good], warm_up=[good]
    )
    expect_refused(report, [*cases, (good, "^$")])


def test_error_for_a_folder_without_a_model_suggests_its_subfolder(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no model folder"):
        load_model_folder(tmp_path)
    save_model_folder(tmp_path / "model", parts())
    with pytest.raises(CheckpointError, match="did you mean"):
        load_model_folder(tmp_path)


def test_average_weights_is_the_mean_of_floats_only() -> None:
    states = [
        {"w": torch.tensor([1.0, 2.0]), "n": torch.tensor(5)},
        {"w": torch.tensor([3.0, 6.0]), "n": torch.tensor(9)},
    ]
    mean = average_weights(states)
    assert mean["w"].tolist() == [2.0, 4.0]
    assert mean["n"].item() == 5


def test_config_of_a_larger_model_than_the_weights_allocates_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_model_folder(tmp_path / "m", parts())
    text = (tmp_path / "m" / "config.yaml").read_text()
    (tmp_path / "m" / "config.yaml").write_text(
        text.replace("dim: 16", "dim: 65536").replace("layers: 1\n", "layers: 256\n")
    )
    monkeypatch.setattr("asr.checkpoint.unfilled", lambda *_: pytest.fail("would allocate tens of terabytes"))
    with pytest.raises(CheckpointError, match="describes a larger model"):
        load_model_folder(tmp_path / "m")
