r"""User-defined rules from a YAML file: a list that is applied from top to bottom.

    - '(\d+) ?%': '\1 percent'     # a pattern and its replacement
    - basic                        # a normaliser by name
    - gonna: going to
    - '\b(uh|um)\b':               # an empty replacement

Patterns are those of the `regex` module: Python's `re`, plus \p{Han} and the like. At the end, white space is
collapsed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from asr.errors import ConfigError, printable
from asr.text.chain import Chain, Step
from asr.text.replacing import replacement

RULE_FILES = (".yaml", ".yml")

_MOST_BYTES = 1_000_000
_MOST_NESTED = 2  # a list of pairs
_SHAPE = "a rule is one `pattern: replacement`, or the name of a normaliser"
_QUOTES = "write patterns with \\ in single quotes"

Find = Callable[[str, str | None], Chain]
Make = Callable[[str | None], Step]


@dataclass(frozen=True)
class Rules:
    """The rules of a file.  name: for results, made of the file's name and a digest of its contents."""

    name: str
    makers: tuple[Make, ...]

    def of_language(self, language: str | None) -> Chain:
        """Return the rules as a chain, with the normalisers among them in that language."""
        steps = [make(language) for make in self.makers]
        return Chain((*steps, Step("white space", lambda text: " ".join(text.split()))))


class _Item(NamedTuple):
    line: int
    pattern: str  # or the name of a normaliser, which has no replacement
    replacement: str | None


def read_rules(path: Path, find: Find, check_name: Callable[[str], str]) -> Rules:
    """Read a file of rules.

    find: returns a normaliser by name and language.  check_name: raises ConfigError for an unknown normaliser.
    Raises ConfigError, with file and line, for a file that is not a list of rules, for a pattern or replacement that
    cannot be used and for an unknown name. `Replacement` describes the errors that rules raise on texts.
    """
    try:
        with path.open("rb") as file:
            data = file.read(_MOST_BYTES + 1)
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise ConfigError(printable(f"{path}: not UTF-8; save the file as UTF-8")) from None
    except OSError as e:
        raise ConfigError(printable(f"{path}: cannot be read: {e.strerror}")) from None
    if len(data) > _MOST_BYTES:
        raise ConfigError(printable(f"{path}: more than {_MOST_BYTES:,} bytes are too many for rules"))
    try:
        makers = tuple(_maker(item, path, find, check_name) for item in _items(text))
    except ConfigError as e:
        raise ConfigError(printable(f"{path}:{e}")) from None
    return Rules(printable(f"{path.name} (sha256 {hashlib.sha256(data).hexdigest()[:12]})"), makers)


def _maker(item: _Item, path: Path, find: Find, check_name: Callable[[str], str]) -> Make:
    label = printable(f"{path.name}:{item.line} {item.pattern}")
    try:
        if item.replacement is None:
            name = check_name(item.pattern)
            return lambda language: Step(label, find(name, language))
        step = Step(label, replacement(f"{path.name}:{item.line}", item.pattern, item.replacement))
    except ConfigError as e:
        hint = f"; {_SHAPE}" if item.replacement is None else ""
        raise ConfigError(f"{item.line}: {e}{hint}") from None
    return lambda _: step


def _items(text: str) -> Iterator[_Item]:
    root = _parse(text)
    if not isinstance(root, yaml.SequenceNode) or not root.value:
        raise ConfigError("1: no list of rules: they begin with '- ', as in - colour: color")
    for node in root.value:
        line = node.start_mark.line + 1
        parts = list(node.value[0]) if isinstance(node, yaml.MappingNode) and len(node.value) == 1 else [node]
        if not all(isinstance(part, yaml.ScalarNode) for part in parts):
            raise ConfigError(f"{line}: {_SHAPE}")
        # Patterns are always text: YAML must not turn no into a boolean or 10 into a number.
        values = [part.value for part in parts]
        if any(ord(c) < 32 and c not in "\t\n" for value in values for c in value):
            raise ConfigError(f'{line}: "\\b" in double quotes is a control character; {_QUOTES}')
        yield _Item(line, values[0], values[1] if len(values) > 1 else None)


def _parse(text: str) -> yaml.Node | None:
    """Parse a document, rejecting deep nesting first, as composing nested documents takes quadratic time."""
    depth = 0
    event: Any
    try:
        for event in yaml.parse(text, Loader=yaml.SafeLoader):
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            if depth > _MOST_NESTED:
                raise ConfigError(f"{event.start_mark.line + 1}: {_SHAPE}")
        return yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.YAMLError as e:
        mark: Any = getattr(e, "problem_mark", None)
        problem = getattr(e, "problem", None) or str(e).splitlines()[0]
        raise ConfigError(f"{mark.line + 1 if mark else 1}: not valid YAML: {problem}; {_QUOTES}") from None
    except ValueError as e:  # an escape that is not a valid character
        raise ConfigError(f"1: not valid YAML: {e}; {_QUOTES}") from None
