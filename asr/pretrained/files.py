"""Files of other projects: their settings and their weights, read without trusting them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, NamedTuple, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from torch import Tensor

from asr.checkpoint import load_tensors
from asr.config import ModelFolderConfig, validate
from asr.errors import CheckpointError, ConfigError, printable
from asr.pretrained.pickled import load_pickled
from asr.pretrained.weights import State
from asr.tokenizer import Tokenizer
from asr.tokenizer.base import first_problem

MOST_JSON_BYTES = 16 << 20
SAFE, INDEX, PICKLED = "model.safetensors", "model.safetensors.index.json", "pytorch_model.bin"

# Far above any use, so that no setting alone can ask for much memory.
Count = Annotated[int, Field(strict=True, gt=0, le=65_536)]
VocabSize = Annotated[int, Field(strict=True, gt=0, le=1_000_000)]
Id = Annotated[int, Field(strict=True, ge=0)]
Ids = tuple[Id, ...]
Heads = tuple[tuple[Id, Id], ...]


class Pretrained(NamedTuple):
    """A model of another project in our terms, not built yet.

    path: the file of its weights.  size: how many numbers that file holds.  whose: its family, in the genitive.
    """

    whose: str
    path: Path
    size: int
    config: ModelFolderConfig
    state: State
    tokenizer: Tokenizer


class Settings(BaseModel):
    """The part of somebody's JSON file that matters here; other keys are ignored."""

    model_config = ConfigDict(frozen=True, extra="ignore", protected_namespaces=())


SettingsT = TypeVar("SettingsT", bound=Settings)


class _Index(Settings):
    """Which file holds each tensor of weights that are spread over several files."""

    weight_map: dict[str, str] = Field(min_length=1)


def read_bytes(path: Path, most: int = MOST_JSON_BYTES) -> bytes:
    """The content of a small file; CheckpointError if it is missing, unreadable or of more than `most` bytes."""
    if not path.is_file():  # a named pipe would block for ever
        raise CheckpointError(f"{path}: there is no such file")
    try:
        if path.stat().st_size > most:
            raise CheckpointError(f"{path}: is far too large for such a file")
        return path.read_bytes()
    except OSError as e:
        raise CheckpointError(f"{path}: cannot be read: {e.strerror}") from e


def read_json(kind: type[SettingsT], path: Path) -> SettingsT:
    """Settings from a JSON file; CheckpointError, one line that names the key, if it is missing or malformed."""
    try:
        return kind.model_validate_json(read_bytes(path))
    except ValidationError as e:
        raise CheckpointError(f"{path}: {first_problem(e)}") from e


def folder_config(tree: dict[str, object], whose: str, path: Path) -> ModelFolderConfig:
    """The configuration of a model folder; CheckpointError if `path` asks for what no model of ours can have."""
    try:
        return validate(ModelFolderConfig, tree, f"{path}: not {whose} settings")
    except ConfigError as e:
        raise CheckpointError(str(e)) from None


def hugging_face_tensors(folder: Path) -> tuple[Path, dict[str, Tensor]]:
    """The weights of a Hugging Face folder and the file that holds or lists them; CheckpointError if torn or missing.

    They stay on disk until they are used.  safetensors, in one file or several, come before pickles.
    """
    if (folder / SAFE).is_file():
        return folder / SAFE, load_tensors(folder / SAFE)
    if (folder / INDEX).is_file():
        return folder / INDEX, _sharded(folder)
    if (folder / PICKLED).is_file():
        return folder / PICKLED, tensors_by_name(folder / PICKLED, load_pickled(folder / PICKLED))
    raise CheckpointError(f"{folder}: there are no weights: {SAFE} is missing")


def tensors_by_name(path: Path, content: object) -> dict[str, Tensor]:
    """The weights that a pickle turned out to hold; CheckpointError if it is anything else."""
    if isinstance(content, dict) and content:
        named = (isinstance(name, str) and isinstance(value, Tensor) for name, value in content.items())
        if all(named):
            return content
    raise CheckpointError(f"{path}: holds something else than weights by name")


def _sharded(folder: Path) -> dict[str, Tensor]:
    index = read_json(_Index, folder / INDEX).weight_map
    tensors: dict[str, Tensor] = {}
    for name in sorted(set(index.values())):
        if Path(name).name != name or not name.endswith(".safetensors"):
            raise CheckpointError(printable(f"{folder / INDEX}: {name!r} is no name of a safetensors file beside it"))
        tensors |= load_tensors(folder / name)
    lost = sorted(index.keys() - tensors.keys())
    if lost:
        raise CheckpointError(printable(f"{folder / index[lost[0]]}: {lost[0]!r} is missing"))
    return tensors
