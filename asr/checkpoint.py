"""Model folders and training states, as safetensors and YAML, so that loading never runs code.

A model folder holds config.yaml, model.safetensors and the tokenizer's file.  A training state is one safetensors
file whose header holds the plain values as JSON and a checksum of the tensors.
"""

from __future__ import annotations

import hashlib
import json
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_model, save_file, save_model
from torch import Tensor

from asr.config import LanguageFolderConfig, ModelFolderConfig, read_config, to_yaml
from asr.errors import CheckpointError, ConfigError
from asr.files import make_folder, write_atomically, write_whole
from asr.model.build import ModelT, build_language_model, build_model, unfilled, weights_needed
from asr.model.language import LanguageModel
from asr.model.speech import SpeechModel
from asr.tokenizer import Tokenizer, load_tokenizer

CONFIG, WEIGHTS = "config.yaml", "model.safetensors"
_PARTS = (".yaml", ".safetensors", ".json", ".model")  # of a model folder's files; users may keep others beside them


class ModelFolder(NamedTuple):
    """A speech model with its configuration and tokenizer: everything that turns audio into text."""

    config: ModelFolderConfig
    model: SpeechModel
    tokenizer: Tokenizer


class LanguageFolder(NamedTuple):
    """A language model with its configuration and tokenizer."""

    config: LanguageFolderConfig
    model: LanguageModel
    tokenizer: Tokenizer


def save_model_folder(folder: Path, parts: ModelFolder | LanguageFolder) -> None:
    """Write a model folder, each file atomically, the weights last."""
    make_folder(folder)
    parts.tokenizer.save(folder)
    write_whole(folder / CONFIG, to_yaml(parts.config))
    with _weights_file(folder / WEIGHTS) as temporary:
        save_model(parts.model, temporary)


def load_model_folder(folder: Path) -> ModelFolder:
    """Read a model folder; the model is in evaluation mode, in float32 on the CPU.

    Raises CheckpointError, which names the folder and what is wrong with it.
    """
    config, tokenizer = load_tokenizer_of(folder)
    sizes = config.features, config.model, tokenizer.vocab_size
    return ModelFolder(config, _loaded(Path(folder) / WEIGHTS, build_model, *sizes), tokenizer)


def load_tokenizer_of(folder: Path) -> tuple[ModelFolderConfig, Tokenizer]:
    """Read the configuration and the tokenizer of a model folder, without weights.

    Raises CheckpointError as `load_model_folder` does.
    """
    folder = Path(folder)
    if not (folder / CONFIG).is_file():
        hint = f"; did you mean {folder / 'model'}?" if (folder / "model" / CONFIG).is_file() else ""
        raise CheckpointError(f"{folder}: no model folder ({CONFIG} is missing){hint}")
    try:
        config = read_config(ModelFolderConfig, folder / CONFIG)
    except ConfigError as e:
        raise CheckpointError(str(e)) from None
    return config, load_tokenizer(folder, config.tokenizer.kind)


def load_language_model(folder: Path) -> LanguageFolder:
    """Read the folder of a language model; the model is in evaluation mode.

    Raises CheckpointError, which names what is wrong with it.
    """
    if not (folder / CONFIG).is_file():
        raise CheckpointError(f"{folder}: no language model ({CONFIG} is missing)")
    try:
        config = read_config(LanguageFolderConfig, folder / CONFIG)
    except ConfigError as e:
        raise CheckpointError(f"no language model: {e}") from None
    tokenizer = load_tokenizer(folder, config.tokenizer.kind)
    sizes = config.model, tokenizer.vocab_size, begin_of(tokenizer)
    return LanguageFolder(config, _loaded(folder / WEIGHTS, build_language_model, *sizes), tokenizer)


def _loaded(weights: Path, build: Callable[..., ModelT], *sizes: Any) -> ModelT:
    """Build a model, load the weights of a file into it and switch it to evaluation mode.

    A file with fewer bytes than the model has weights is rejected before anything is allocated for the model.
    """
    _check_sizes(weights)
    if weights_needed(build, *sizes) > weights.stat().st_size:
        raise CheckpointError(f"{weights}: the weights do not fit {CONFIG}, which describes a larger model")
    model = unfilled(build, *sizes)
    try:
        load_model(model, str(weights), strict=True)
    except (SafetensorError, RuntimeError, OSError, ValueError, KeyError) as e:
        raise CheckpointError(f"{weights}: the weights do not fit {CONFIG}: {_first_line(e)}") from None
    return model.eval()


def begin_of(tokenizer: Tokenizer) -> int:
    """Return the token with which every text begins, whatever its language."""
    return tokenizer.prefix(next(iter(tokenizer.languages), None))[0]


def digest_of(folder: Path) -> str:
    """Return a hash of a model folder's configuration, tokenizer and weights, which identifies the model."""
    digest = hashlib.sha256()
    for path in sorted(p for p in folder.iterdir() if p.suffix in _PARTS and not p.name.startswith(".")):
        digest.update(f"{path.name}\0{path.stat().st_size}\0".encode())
        with path.open("rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()


def save_state(path: Path, tree: Mapping[str, Any]) -> None:
    """Write nested plain values and tensors atomically as one safetensors file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    tensors: list[Tensor] = []
    plain = _encode(tree, tensors, {})
    flat = {str(i): t for i, t in enumerate(tensors)}
    metadata = {"tree": json.dumps(plain), "crc32": str(_checksum(flat))}
    with _weights_file(path) as temporary:
        save_file(flat, temporary, metadata)


def load_state(path: Path) -> dict[str, Any]:
    """Read a file that `save_state` wrote.

    Raises CheckpointError if the file is truncated, altered or not such a file.
    """
    _check_sizes(path)
    try:
        with safe_open(str(path), framework="pt") as f:
            metadata = f.metadata() or {}
            flat = {key: f.get_tensor(key) for key in f.keys()}  # noqa: SIM118  (not a mapping)
        if metadata["crc32"] != str(_checksum(flat)):
            raise CheckpointError(f"{path}: checksum does not match, the file is damaged")
        return _decode(json.loads(metadata["tree"]), flat)
    except (SafetensorError, OSError, KeyError, ValueError, TypeError, RecursionError) as e:
        raise CheckpointError(f"{path}: torn, or not a training state: {_first_line(e)}") from None


def load_tensors(path: Path) -> dict[str, Tensor]:
    """Return the tensors of a safetensors file by name, memory-mapped: they stay on disk until they are used.

    Raises CheckpointError if the file is truncated or not a safetensors file.
    """
    _check_sizes(path)
    try:
        with safe_open(str(path), framework="pt") as f:
            return {key: f.get_tensor(key) for key in f.keys()}  # noqa: SIM118  (not a mapping)
    except (SafetensorError, OSError, ValueError) as e:
        raise CheckpointError(f"{path}: cut off, or not a safetensors file: {_first_line(e)}") from None


def average_weights(states: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """Average each weight over several checkpoints, in float64; integer tensors are taken from the first."""
    mean: dict[str, Tensor] = {}
    for name, first in states[0].items():
        if first.is_floating_point():
            total = torch.stack([state[name].double() for state in states]).mean(0)
            mean[name] = total.to(first.dtype)
        else:
            mean[name] = first.clone()
    return mean


@contextmanager
def _weights_file(path: Path) -> Iterator[str]:
    """Give safetensors a temporary path to write to, and name the file in its errors, which safetensors does not."""
    try:
        with write_atomically(path) as temporary:
            yield str(temporary)
    except SafetensorError as e:
        raise CheckpointError(f"{path}: cannot be written: {_first_line(e)}") from None


def _check_sizes(path: Path) -> None:
    """Reject a header that claims to be longer than the file, before anything is allocated for it."""
    try:
        size = path.stat().st_size
        with path.open("rb") as f:
            header = int.from_bytes(f.read(8), "little")
    except OSError as e:
        raise CheckpointError(f"{path}: cannot be read: {e.strerror}") from None
    if size < 8 or header > size - 8:
        raise CheckpointError(f"{path}: not a safetensors file, or cut off")


def _first_line(error: Exception) -> str:
    text = " ".join(str(error).split())
    return text if len(text) < 300 else text[:300] + " ..."


def _checksum(flat: Mapping[str, Tensor]) -> int:
    crc = 0
    for key in sorted(flat):
        data = flat[key].detach().cpu().contiguous().reshape(-1).view(torch.uint8)
        crc = zlib.crc32(data.numpy().data, crc)
    return crc


def _encode(value: Any, tensors: list[Tensor], seen: dict[tuple[Any, ...], int]) -> Any:
    """Replace tensors by their numbers, and tag what JSON lacks: tuples and mappings whose keys are not strings."""
    if isinstance(value, Tensor):
        value = value.detach()
        # The identity of the tensor in the tree, not of a CPU copy, whose address the next copy may reuse.
        identity = (value.device, value.data_ptr(), value.shape, value.stride(), value.dtype)
        if value.numel() == 0 or identity not in seen:  # tied weights are stored once
            seen[identity] = len(tensors)
            tensors.append(value.cpu().clone().contiguous())
        return {"$tensor": seen[identity]}
    if isinstance(value, Mapping):
        return {"$map": [[_encode(k, tensors, seen), _encode(v, tensors, seen)] for k, v in value.items()]}
    if isinstance(value, tuple):
        return {"$tuple": [_encode(v, tensors, seen) for v in value]}
    if isinstance(value, list):
        return [_encode(v, tensors, seen) for v in value]
    if isinstance(value, (str, int, float, bool, type(None))):
        return value
    if isinstance(value, Path):
        return str(value)
    raise TypeError(f"a training state holds plain values and tensors, not {type(value).__name__}")


def _decode(value: Any, flat: Mapping[str, Tensor]) -> Any:
    if isinstance(value, list):
        return [_decode(v, flat) for v in value]
    if not isinstance(value, dict):
        return value
    ((tag, content),) = value.items()
    if tag == "$tensor":
        return flat[str(content)]
    if tag == "$tuple":
        return tuple(_decode(v, flat) for v in content)
    return {_decode(k, flat): _decode(v, flat) for k, v in content}
