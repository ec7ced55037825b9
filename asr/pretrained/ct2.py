"""Reader of CTranslate2 model folders: the container `model.bin` and its `config.json`.

The container, little-endian: u32 version; name of the specification; u32 revision; u32 number of variables; per
variable its name, u8 rank, u32 dimensions, u8 type, u32 bytes, data; u32 number of aliases, pairs of names (alias,
variable). A name is a u16 length, which includes a terminating zero byte, and the bytes.
Nothing in the file is trusted: every length is compared with the rest of the file before anything is allocated or
read.
"""

from __future__ import annotations

import io
import math
import os
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import field_validator
from torch import Tensor

from asr.errors import CheckpointError
from asr.files.small import read_json
from asr.pretrained.files import Heads, Ids, Settings

VERSION = 6  # the only one that CTranslate2 has written since it supports Whisper
MAX_RANK = 8
MAX_NAME_BYTES = 512
MIN_VARIABLE_BYTES = 2 + 2 + 1 + 1 + 4 + 1  # name of one letter, rank 0, type, size, one byte of data
MIN_ALIAS_BYTES = 2 * (2 + 2)
# NumPy has no bfloat16: its bits are read as integers and reinterpreted.
TYPES: dict[int, tuple[np.dtype[Any], torch.dtype]] = {
    0: (np.dtype("<f4"), torch.float32),
    1: (np.dtype("<i1"), torch.int8),
    2: (np.dtype("<i2"), torch.int16),
    3: (np.dtype("<i4"), torch.int32),
    4: (np.dtype("<f2"), torch.float16),
    5: (np.dtype("<i2"), torch.bfloat16),
}


@dataclass(frozen=True)
class Ct2Model:
    """The content of a `model.bin`: all variables by name, aliases included, in the file's types."""

    path: Path
    variables: dict[str, Tensor]

    def setting(self, name: str) -> int:
        """Return a scalar variable such as `encoder/num_heads`; raise CheckpointError unless it is an integer."""
        value = self.variables.get(name)
        if value is None or value.numel() != 1 or value.is_floating_point():
            raise CheckpointError(f"{self.path}: there is no setting {name!r}")
        return int(value.item())

    def weights(self) -> dict[str, Tensor]:
        """Return all variables of rank 1 and more, with quantised ones restored to float32 and without their scales.

        CTranslate2 stores round(weight * scale), with one scale for each row of an int8 matrix (a convolution's
        dimensions after the first count as one) and a single scale for int16. Aliases share one tensor.
        """
        done: dict[int, Tensor] = {}
        weights = {}
        for name, value in self.variables.items():
            if value.dim() == 0 or self._is_scale(name):
                continue
            if id(value) not in done:  # an alias follows its variable and has no scale of its own
                done[id(value)] = self._restore(name, value)
            weights[name] = done[id(value)]
        return weights

    def _is_scale(self, name: str) -> bool:
        return name.endswith("_scale") and name.removesuffix("_scale") in self.variables

    def _restore(self, name: str, value: Tensor) -> Tensor:
        if value.is_floating_point():
            return value
        scale = self.variables.get(f"{name}_scale")
        if scale is None:
            raise CheckpointError(f"{self.path}: {name!r} is quantised and has no scale")
        per_row = scale.dim() == 1 and len(scale) == len(value)
        if not (scale.is_floating_point() and (scale.dim() == 0 or per_row)):
            raise CheckpointError(f"{self.path}: the scale of {name!r} does not fit it")
        scale = scale.float()
        if not bool((torch.isfinite(scale) & (scale > 0)).all()):
            raise CheckpointError(f"{self.path}: the scale of {name!r} is not positive")
        return value.float() / scale.view(-1, *[1] * (value.dim() - 1))


class Ct2Config(Settings):
    """The part of a Whisper folder's `config.json` that decoding needs; other keys are ignored.

    `suppress_ids` are never produced, `suppress_ids_begin` not as the first text token; `alignment_heads` are
    pairs (decoder layer, head) whose cross-attention follows the audio.
    """

    suppress_ids: Ids = ()
    suppress_ids_begin: Ids = ()
    alignment_heads: Heads = ()

    @field_validator("*", mode="before")
    @classmethod
    def _null_is_empty(cls, value: object) -> object:
        return () if value is None else value


def read_ct2(path: str | Path) -> Ct2Model:
    """Read a `model.bin`; raise CheckpointError, one line, if it is missing, damaged or inconsistent."""
    path = Path(path)
    if not path.is_file():  # a named pipe would block forever
        raise CheckpointError(f"{path}: there is no such file")
    try:
        with path.open("rb") as file:
            return _Reader(path, file).model()
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read: {error.strerror}") from error


def read_ct2_config(folder: str | Path) -> Ct2Config:
    """Read the `config.json` of a CTranslate2 folder; raise CheckpointError if it is missing or malformed."""
    return read_json(Ct2Config, Path(folder) / "config.json")


class _Reader:
    """Reads the container from start to end, keeping track of the bytes left."""

    def __init__(self, path: Path, file: io.BufferedReader) -> None:
        self.path = path
        self.file = file
        self.left = os.fstat(file.fileno()).st_size

    def model(self) -> Ct2Model:
        version = self.number("I", "its version")
        if version != VERSION:
            raise self.error(f"is not a CTranslate2 model of version {VERSION} (found {version})")
        self.name("the specification's name")
        self.number("I", "its revision")
        variables: dict[str, Tensor] = {}
        for _ in range(self.count("variables", MIN_VARIABLE_BYTES)):
            name = self.name("a variable's name")
            if name in variables:
                raise self.error(f"the variable {name!r} occurs twice")
            variables[name] = self.tensor(name)
        for _ in range(self.count("aliases", MIN_ALIAS_BYTES)):
            self.alias(variables)
        if self.left:
            raise self.error(f"{self.left} bytes follow the end of the model")
        return Ct2Model(self.path, variables)

    def error(self, message: str) -> CheckpointError:
        return CheckpointError(f"{self.path}: {message}")

    def bytes(self, size: int, what: str) -> bytes:
        data = self.file.read(size) if size <= self.left else b""
        if len(data) != size:
            raise self.error(f"ends within {what}; was it downloaded in full?")
        self.left -= size
        return data

    def number(self, layout: str, what: str) -> int:
        (value,) = struct.unpack(f"<{layout}", self.bytes(struct.calcsize(f"<{layout}"), what))
        return int(value)

    def count(self, what: str, min_bytes: int) -> int:
        count = self.number("I", f"the number of {what}")
        if count * min_bytes > self.left:
            raise self.error(f"declares {count} {what}, more than the file can hold")
        return count

    def name(self, what: str) -> str:
        raw = self.bytes(self.number("H", what), what)
        if not 2 <= len(raw) <= MAX_NAME_BYTES or raw.find(0) != len(raw) - 1:
            raise self.error(f"{what} is too short or too long, or does not end in its only zero byte")
        try:
            return raw[:-1].decode("utf-8")
        except UnicodeDecodeError as error:
            raise self.error(f"{what} is not UTF-8") from error

    def tensor(self, name: str) -> Tensor:
        what = f"the variable {name!r}"
        rank = self.number("B", what)
        if rank > MAX_RANK:
            raise self.error(f"{what} has {rank} dimensions")
        shape = [self.number("I", what) for _ in range(rank)]
        kind = self.number("B", what)
        if kind not in TYPES:
            raise self.error(f"{what} has the unknown type {kind}")
        array_type, torch_type = TYPES[kind]
        size = self.number("I", what)
        # Compared as Python integers, which can't overflow.
        if size == 0 or size != math.prod(shape) * array_type.itemsize:
            raise self.error(f"{what} has {size} bytes, not those of shape {shape}")
        if size > self.left:
            raise self.error(f"ends within {what}; was it downloaded in full?")
        array = np.empty(shape, array_type)
        # Read in place, without a second copy of weights that can take gigabytes.
        if self.file.readinto(array.reshape(-1).data) != size:
            raise self.error(f"ends within {what}; was it downloaded in full?")
        self.left -= size
        return torch.from_numpy(array).view(torch_type)

    def alias(self, variables: dict[str, Tensor]) -> None:
        alias, name = self.name("an alias"), self.name("an alias")
        if alias in variables:
            raise self.error(f"the alias {alias!r} is a variable already")
        if name not in variables:
            raise self.error(f"the alias {alias!r} stands for {name!r}, which is not there")
        variables[alias] = variables[name]
