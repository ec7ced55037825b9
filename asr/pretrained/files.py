"""Files of other projects: settings and weights, read without trusting them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, NamedTuple

from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from asr.checkpoint import load_tensors
from asr.config import ModelFolderConfig, validate
from asr.errors import CheckpointError, ConfigError, printable
from asr.files.small import read_json
from asr.pretrained.pickled import load_pickled
from asr.pretrained.weights import State
from asr.tokenizer import Tokenizer

SAFE, INDEX, PICKLED = "model.safetensors", "model.safetensors.index.json", "pytorch_model.bin"

# Far above any real use, so that no single setting can request much memory.
Count = Annotated[int, Field(strict=True, gt=0, le=65_536)]
VocabSize = Annotated[int, Field(strict=True, gt=0, le=1_000_000)]
Id = Annotated[int, Field(strict=True, ge=0)]
Ids = tuple[Id, ...]
Heads = tuple[tuple[Id, Id], ...]


class Pretrained(NamedTuple):
    """Another project's model with our configuration and parameter names, not built yet.

    path: the file of its weights.  size: number of elements in that file.  whose: its family in the genitive, for
    messages.
    """

    whose: str
    path: Path
    size: int
    config: ModelFolderConfig
    state: State
    tokenizer: Tokenizer


class Settings(BaseModel):
    """The relevant part of another project's JSON file; other keys are ignored."""

    model_config = ConfigDict(frozen=True, extra="ignore", protected_namespaces=())


class _Index(Settings):
    """The index of weights that are split over several files: the file of each tensor."""

    weight_map: dict[str, str] = Field(min_length=1)


def folder_config(tree: dict[str, object], whose: str, path: Path) -> ModelFolderConfig:
    """Build the configuration of a model folder; raise CheckpointError if the settings at `path` are unsupported."""
    try:
        return validate(ModelFolderConfig, tree, f"{path}: not {whose} settings")
    except ConfigError as e:
        raise CheckpointError(str(e)) from None


def hugging_face_tensors(folder: Path) -> tuple[Path, dict[str, Tensor]]:
    """Return the file that holds or lists the weights of a Hugging Face folder, and the weights by name.

    They stay on disk until they are used.  safetensors, in one file or several, take precedence over pickles.
    Raises CheckpointError if the weights are damaged or missing.
    """
    if (folder / SAFE).is_file():
        return folder / SAFE, load_tensors(folder / SAFE)
    if (folder / INDEX).is_file():
        return folder / INDEX, _sharded(folder)
    if (folder / PICKLED).is_file():
        return folder / PICKLED, tensors_by_name(folder / PICKLED, load_pickled(folder / PICKLED))
    raise CheckpointError(f"{folder}: there are no weights: {SAFE} is missing")


def tensors_by_name(path: Path, content: object) -> dict[str, Tensor]:
    """Return the content of a pickle if it is a dict of tensors by name; raise CheckpointError otherwise."""
    if isinstance(content, dict) and content:
        named = (isinstance(name, str) and isinstance(value, Tensor) for name, value in content.items())
        if all(named):
            return content
    raise CheckpointError(f"{path}: does not hold weights by name")


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
