"""Which parts of a model learn, and how fast: factors on the learning rate by the names of modules."""

from __future__ import annotations

import difflib
import itertools
from collections.abc import Mapping

from torch import nn

from asr.errors import ConfigError

KEY = "optimizer.parts"


class PartRates:
    """Learning-rate factors of a model's weights: each follows the most specific part it is in; the default is 1.

    parts: factors by module name, such as `encoder` or `decoder.layers.0`.  A factor of 0 freezes: such weights get
    `requires_grad=False`.  A weight that two modules share follows the more specific of their parts.  Raises
    ConfigError, one line, for a part that the model does not have, if two equally specific parts give a shared weight
    different factors, or if nothing is left to train.
    """

    def __init__(self, model: nn.Module, parts: Mapping[str, float]) -> None:
        self.model, self.parts = model, parts
        names = _parts_of(model)
        for part in parts:
            if part not in names:
                raise ConfigError(f"{KEY}: the model has no part {part!r} with weights{_known(part, names)}")
        chosen: dict[nn.Parameter, str] = {}
        for name, weight in model.named_parameters(remove_duplicate=False):
            part = self._part(name)
            before = chosen.get(weight, "")
            if len(_path(part)) == len(_path(before)) and self._factor(part) != self._factor(before):
                raise ConfigError(f"{KEY}: {before} and {part} share weights, so their factors must be equal")
            if len(_path(part)) >= len(_path(before)):
                chosen[weight] = part
        self.factors = {weight: self._factor(part) for weight, part in chosen.items()}
        named = model.named_parameters()
        self.decaying = {w for name, w in named if w.ndim > 1 and "weight" in _path(name)[-1]}
        for weight, factor in self.factors.items():
            weight.requires_grad_(factor > 0)
        if not any(self.factors.values()):
            raise ConfigError(f"{KEY}: everything is frozen, so nothing is left to train")

    def quiet(self) -> None:
        """Put the frozen modules into evaluation mode, which turns their dropout off."""
        for name, module in self.model.named_modules():
            if self._factor(self._part(name)) == 0:
                module.training = False

    def groups(self, lr: float, weight_decay: float) -> list[dict[str, object]]:
        """Return the optimiser's groups, one for each factor with and without weight decay, highest factor first.

        Only weight matrices decay: not biases, even those of two dimensions, not norms, and not a learned silence.
        """
        rates = sorted({factor for factor in self.factors.values() if factor}, reverse=True)
        groups: list[dict[str, object]] = []
        for factor, decays in itertools.product(rates, (True, False)):
            weights = [w for w, own in self.factors.items() if own == factor and (w in self.decaying) == decays]
            if weights:
                groups.append({"params": weights, "lr": lr * factor, "weight_decay": weight_decay if decays else 0.0})
        return groups

    @property
    def trained(self) -> int:
        """Number of trained parameters."""
        return sum(weight.numel() for weight, factor in self.factors.items() if factor)

    def _part(self, name: str) -> str:
        path = _path(name)
        prefixes = (".".join(path[:n]) for n in range(len(path), 0, -1))
        return next((prefix for prefix in prefixes if prefix in self.parts), "")

    def _factor(self, part: str) -> float:
        return self.parts.get(part, 1.0)


def _path(name: str) -> list[str]:
    return name.split(".") if name else []


def _parts_of(model: nn.Module) -> list[str]:
    modules = model.named_modules(remove_duplicate=False)
    return [name for name, module in modules if name and next(module.parameters(), None) is not None]


def _known(part: str, names: list[str]) -> str:
    near = difflib.get_close_matches(part, names, n=1)
    hint = f"; did you mean {near[0]!r}?" if near else ";"
    outline = [name for name in names if len(_path(name)) <= 2]
    return f"{hint} there are {', '.join(outline)} and what lies in them"
