"""Map another project's weights to our parameter names; its names of the parts are in names.py."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor

from asr.config import DecoderConfig, ModelConfig
from asr.errors import CheckpointError, printable

State = dict[str, Tensor]


def same(name: str) -> str:
    """Return the name unchanged: the spelling of files that use dotted names like ours."""
    return name


class Weights:
    """The tensors of a file or folder; `spell` converts a dotted name to the file's own spelling.

    It records which tensors were requested, so that none is overlooked.
    """

    def __init__(self, path: Path, tensors: Mapping[str, Tensor], spell: Callable[[str], str] = same) -> None:
        self.path = path
        # A tensor with several names is counted once.
        self.size = sum({t.data_ptr(): t.numel() for t in tensors.values()}.values())
        self._tensors, self._spell = tensors, spell
        self._asked: set[str] = set()

    def __contains__(self, name: str) -> bool:
        return self._spell(name) in self._tensors

    def __getitem__(self, name: str) -> Tensor:
        """Return a floating-point tensor; raise KeyError with the file's own name for it if it is missing."""
        spelled = self._spell(name)
        tensor = self._tensors[spelled]
        if not tensor.is_floating_point():
            raise ValueError(f"{spelled!r} holds {tensor.dtype} in place of floating point")
        self._asked.add(spelled)
        return tensor

    def skip(self, *names: str) -> None:
        """Ignore these tensors deliberately, if they exist."""
        self._asked.update(map(self._spell, names))

    def refuse_rest(self) -> None:
        """Raise ValueError if any tensor was not requested: the model would not be the one in the file."""
        rest = sorted(self._tensors.keys() - self._asked)
        if rest:
            raise ValueError(f"the model has no place for {len(rest)} of them, such as {rest[0]!r}")

    def part(self, names: str) -> tuple[Tensor, Tensor]:
        """Return weight and bias of the parts in `names`, stacked."""
        weights = [self[f"{name}.weight"] for name in names.split()]
        biases = [self._bias(name, weight) for name, weight in zip(names.split(), weights, strict=True)]
        if len(weights) == 1:
            return weights[0], biases[0]
        return torch.cat(weights), torch.cat(biases)

    def _bias(self, name: str, weight: Tensor) -> Tensor:
        if f"{name}.bias" not in self and name.endswith(("k_proj", "key")):  # it has no effect on attention
            return weight.new_zeros(len(weight))
        return self[f"{name}.bias"]


_ENCODER = {
    "self_attention.qkv": "attention.qkv",
    "self_attention.out": "attention.out",
    "self_residual.norm": "attention_residual.norm",
}


def layers(weights: Weights, theirs: Mapping[str, str], places: Mapping[str, str], model: ModelConfig) -> State:
    """Return the state of all Transformer layers; `places` gives, by side, the path of their layer `{i}`."""
    state: State = {}
    assert isinstance(model.decoder, DecoderConfig)
    for side, count in (("encoder", model.encoder.layers), ("decoder", model.decoder.layers)):
        parts = theirs
        if side == "encoder":  # its only attention has a different name here
            own = {part: names for part, names in theirs.items() if not part.startswith("cross_")}
            parts = {_ENCODER.get(part, part): names for part, names in own.items()}
        for i in range(count):
            place = places[side].format(i=i)
            for part, names in parts.items():
                put(state, f"{side}.layers.{i}.{part}", weights, " ".join(f"{place}.{n}" for n in names.split()))
    return state


def put(state: State, ours: str, weights: Weights, theirs: str) -> None:
    """Add weight and bias of one of their parts, or of several stacked ones, under our name."""
    state[f"{ours}.weight"], state[f"{ours}.bias"] = weights.part(theirs)


@contextmanager
def expecting(whose: str, path: Path) -> Iterator[None]:
    """Turn errors from missing weights or wrong shapes into a CheckpointError that names the file."""
    try:
        yield
    except KeyError as e:
        raise CheckpointError(f"{path}: not {whose} weights: {e.args[0]!r} is missing") from None
    except (ValueError, RuntimeError) as e:
        raise CheckpointError(printable(f"{path}: not {whose} weights: {' '.join(str(e).split())[:200]}")) from None
