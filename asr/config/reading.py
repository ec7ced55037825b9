"""Conversion between YAML and options; an unknown key, a wrong type or a hostile file becomes a one-line error."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar, get_args

import yaml
from pydantic import BaseModel, ValidationError

from asr.errors import ConfigError, printable

from .base import Config
from .training import ExperimentConfig


class _Loader(yaml.SafeLoader):
    """Safe YAML with the plain values of YAML 1.2, in which a key given twice is an error.

    By YAML 1.1, PyYAML's own, 1e-3 would be a text, `no` (Norwegian) would be false, 010 would be 8, and 12:30 and
    2024-05-01 (names of folders) would be numbers and dates.
    """

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.value in seen:
                raise ConfigError(f"line {key.start_mark.line + 1}: key '{key.value}' is given twice")
            seen.add(str(key.value))
        return super().construct_mapping(node, deep)


_Loader.yaml_implicit_resolvers = {}
for _kind, _pattern in {
    "null": r"~|null|Null|NULL|",
    "bool": r"true|True|TRUE|false|False|FALSE",
    "int": r"[-+]?(?:0|[1-9]\d*)",
    "float": r"[-+]?(?:\d+\.\d*|\.\d+)(?:[eE][-+]?\d+)?|[-+]?\d+[eE][-+]?\d+|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)",
}.items():
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_kind}", re.compile(rf"^(?:{_pattern})$"), None)

C = TypeVar("C", bound=Config)
_MAX_YAML_BYTES = 1_000_000
_MOST_NESTED = 20
# Replacements for pydantic's messages that speak of Python types.
_WANTED = {
    "model_type": "must be a section of keys",
    "dict_type": "must be a section of keys",
    "tuple_type": "must be a list",
    "too_short": "must be a list of {min_length} or more",
    "path_type": "must be a path",
}


def _check_events(text: str) -> None:
    """Reject what makes a short text large or slow: aliases, and deep nesting, which takes quadratic time to parse."""
    depth = 0
    for event in yaml.parse(text, Loader=_Loader):
        if isinstance(event, yaml.AliasEvent):
            raise ConfigError("YAML aliases (*name) are not allowed here; write the value out")
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > _MOST_NESTED:
            raise ConfigError(f"nested more than {_MOST_NESTED} deep")


def parse_yaml(text: str, source: str) -> Any:
    """Parse safe YAML; `source` is named in errors.  Aliases are rejected: a few lines of them can fill the memory."""
    if len(text) > _MAX_YAML_BYTES:
        raise ConfigError(f"{source}: {len(text)} characters are too many for a configuration")
    try:
        _check_events(text)
        return yaml.load(text, Loader=_Loader)
    except yaml.YAMLError as e:
        mark = getattr(e, "problem_mark", None)
        where = f" line {mark.line + 1}" if mark else ""
        problem = getattr(e, "problem", None) or str(e).splitlines()[0]
        raise ConfigError(printable(f"{source}:{where} not valid YAML: {problem}")) from None
    except ConfigError as e:
        raise ConfigError(printable(f"{source}: {e}")) from None
    except (RecursionError, ValueError) as e:
        raise ConfigError(f"{source}: not valid YAML: {str(e).splitlines()[0]}") from None


def read_yaml(path: Path) -> Any:
    """Read a file of safe YAML.  Raises ConfigError, one line, if it is not one."""
    try:
        text = Path(path).read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such file") from None
    except (OSError, UnicodeDecodeError) as e:
        raise ConfigError(f"{path}: cannot be read as UTF-8 text: {e}") from None
    return parse_yaml(text, str(path))


def read_config(kind: type[C], path: Path, overrides: Sequence[str] = ()) -> C:
    """Read a YAML file and `a.b=value` overrides into `kind`.

    Raises ConfigError, one line that names the wrong key and, for an unknown key, the closest known one.
    """
    tree = read_tree(path)
    for number, override in enumerate(overrides):
        _apply_override(tree, override, overrides[:number])
    return validate(kind, tree, str(path))


def read_tree(path: Path) -> dict[str, Any]:
    """Read a YAML file of `key: value` lines.  Raises ConfigError, one line, if it is not one."""
    tree = read_yaml(path)
    if tree is None:
        tree = {}
    if not isinstance(tree, dict):
        raise ConfigError(f"{path}: expected 'key: value' lines, found {type(tree).__name__}")
    return tree


def _apply_override(tree: dict[str, Any], override: str, earlier: Sequence[str]) -> None:
    key, equals, value = override.partition("=")
    if not equals or not key:
        raise ConfigError(f"'{override}': overrides look like trainer.max_steps=1000")
    if lost := [other for other in earlier if other.startswith(f"{key}.")]:
        raise ConfigError(f"'{override}' would undo '{lost[0]}': give whole sections first")
    set_key(tree, key, parse_yaml(value, f"'{override}'"), override)


def set_key(tree: dict[str, Any], key: str, value: Any, source: str) -> None:
    """Put a value under a dotted key.  Raises ConfigError, which names `source`, if a part of the key is a value."""
    *parents, last = key.split(".")
    node = tree
    for part in parents:
        child = node.setdefault(part, {})
        if not isinstance(child, dict):
            raise ConfigError(f"{source}: {part} is a value, not a section")
        node = child
    node[last] = value


def flat(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Flatten nested values into dotted keys."""
    found: dict[str, Any] = {}
    for key, value in tree.items():
        found |= flat(value, f"{prefix}{key}.") if isinstance(value, dict) and value else {f"{prefix}{key}": value}
    return found


def validate(kind: type[C], tree: Any, source: str) -> C:
    """Build `kind` from plain data; `source` is named in errors."""
    try:
        return kind.model_validate(tree)
    except ValidationError as e:
        # defaults that depend on a wrong value are not mistakes of their own
        errors = [error for error in e.errors() if error["type"] != "default_factory_not_called"]
        problems = "; ".join(_explain(kind, error) for error in errors[:5])
        raise ConfigError(printable(f"{source}: {problems}")) from None
    except RecursionError:
        raise ConfigError(f"{source}: nested too deeply") from None


def _explain(kind: type[BaseModel], error: Any) -> str:
    # pydantic puts the name of a union's chosen member into the path, which users did not write
    loc = [str(part) for part in error["loc"]]
    unions = [place for place, part in enumerate(loc) if part in ("features", "decoder")]
    path = [part for place, part in enumerate(loc) if place - 1 not in unions]
    key = ".".join(path)
    if error["type"] == "extra_forbidden":
        known = _known_keys(kind)
        if key in known and unions:
            return f"'{key}': kind {loc[unions[-1] + 1]} has no {path[-1]}"
        near = difflib.get_close_matches(key, known, n=1, cutoff=0.5)
        if not near:
            by_last = {name.rpartition(".")[2]: name for name in known}
            near = [by_last[m] for m in difflib.get_close_matches(path[-1], by_last, n=1)]
        hint = f"; did you mean '{near[0]}'?" if near else ""
        return f"unknown key '{key}'{hint}"
    if error["type"] == "missing":
        return f"key '{key}' is missing"
    if error["type"] == "union_tag_invalid":
        return f"'{key}': there is no kind '{error['ctx']['tag']}'; there are {error['ctx']['expected_tags']}"
    message = error["msg"].removeprefix("Value error, ").replace("\n", " ")
    if error["type"] in _WANTED:
        message = _WANTED[error["type"]].format(**error.get("ctx", {}))
    if not key:
        return message
    given = str(error["input"]).replace("\n", " ")[:60]
    if error["type"] == "tuple_type" and isinstance(error["input"], str | int | float):
        return f"'{key}': {message}, got {given}: write [{given}]"
    return f"'{key}': {message}" + (f", got {given}" if error["type"] != "value_error" else "")


def _known_keys(kind: Any, prefix: str = "") -> list[str]:
    keys: list[str] = []
    for name, field in getattr(kind, "model_fields", {}).items():
        shown = field.alias or name
        keys.append(prefix + shown)
        for part in _models_in(field.annotation):
            keys += _known_keys(part, f"{prefix}{shown}.")
    return keys


def _models_in(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for part in get_args(annotation) for model in _models_in(part)]


def to_yaml(config: Config) -> str:
    """Return a configuration as YAML, in full and in the order of its definition, without what `init` brings."""
    brought = config.init.brings if isinstance(config, ExperimentConfig) and config.init is not None else None
    return yaml.safe_dump(config.model_dump(mode="json", exclude=brought), sort_keys=False, allow_unicode=True)
