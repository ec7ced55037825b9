"""Groups of options shared by commands, as dataclasses whose fields are the options.

typer reads function signatures and has no way of its own to share options among commands.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import is_dataclass
from functools import wraps
from typing import Any


def with_options(command: Callable[..., None]) -> Callable[..., None]:
    """Return the command with each parameter that is such a dataclass expanded into one parameter per field."""
    own = inspect.signature(command, eval_str=True).parameters.values()
    groups: dict[str, Any] = {p.name: p.annotation for p in own if is_dataclass(p.annotation)}
    fields = {name: inspect.signature(kind, eval_str=True).parameters for name, kind in groups.items()}

    @wraps(command)
    def expanded(**values: Any) -> None:
        shared = {name: kind(**{field: values.pop(field) for field in fields[name]}) for name, kind in groups.items()}
        command(**shared, **values)

    parameters = [field for p in own for field in (fields[p.name].values() if p.name in groups else (p,))]
    told = [p.replace(kind=p.KEYWORD_ONLY) for p in parameters]
    told.sort(key=lambda p: p.default is not p.empty)  # required parameters come first
    for_typer: Any = expanded
    for_typer.__signature__ = inspect.Signature(told)
    for_typer.__annotations__ = {p.name: p.annotation for p in told}
    return expanded
