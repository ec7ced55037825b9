"""Generate docs/configuration.md from the configuration classes: `python -m docs.configuration`.

Keys, defaults, descriptions, choices and bounds come from the JSON schema that `asr config schema` prints.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from asr.config import AblationConfig, Config, ExperimentConfig, LanguageExperimentConfig
from asr.files import write_whole
from benchmarks.script import run_script

_HEAD = """\
# Configuration: every key, its default and what it is

- A YAML file holds only what differs from the defaults: `asr train conf/prompts/en.yaml`.
- On the command line `key=value` changes a key; values are YAML: `trainer.max_steps=2000 'augment.speeds=[0.9, 1]'`.
- `--print-config` prints all keys with their values and trains nothing.
- `asr config schema > experiment.schema.json` writes a JSON schema, with which editors complete and check keys.

`null` means none; `{}` turns on such a section with its defaults, as in `data.phrases={}`. A key without a default
here is a section. What the methods do and how they compare: [methods.md](methods.md). This page is written by
`python -m docs.configuration`."""
_COMMANDS: tuple[tuple[type[Config], str, str], ...] = (
    (ExperimentConfig, "Experiments: `asr train`", ""),
    (LanguageExperimentConfig, "Language models: `asr lm train`", " of language models"),
    (AblationConfig, "Ablations: `asr ablate`, whose YAML has all of it", " of ablations"),
)
_LAST = ("init", "adapt")  # they refer to sections that other keys introduce
_GUARD = 100  # a bound above this only stops hostile files

Schema = dict[str, Any]


def page() -> str:
    """Return the page for the current options."""
    blocks, shown = [_HEAD], dict[str, str]()
    for kind, title, suffix in _COMMANDS:
        schema = kind.model_json_schema()
        blocks += [f"## {title}", *_Command(schema["$defs"], suffix, shown).section(schema, "")]
    return "\n\n".join(blocks) + "\n"


class _Command:
    """Writes the sections of a command.  shown: titles of sections already on the page; none is repeated."""

    def __init__(self, models: dict[str, Schema], suffix: str, shown: dict[str, str]) -> None:
        self.models, self.suffix, self.shown = models, suffix, shown

    def section(self, model: Schema, prefix: str, first: Schema | None = None) -> Iterator[str]:
        """Yield a section's description, table of keys and subsections; with `first`, only keys that differ from it."""
        rows, same, below = [["key", "default", "what it is"], ["---"] * 3], [], list[tuple[str, str, str]]()
        for name, prop in sorted(model["properties"].items(), key=lambda item: item[0] in _LAST):
            if first and first["properties"].get(name) == prop:
                same.append(f"`{name}`")
            elif "const" not in prop:  # the title already names the kind
                inner = re.findall(r'"\$ref": "#/\$defs/(\w+)"', json.dumps(prop))
                key = f"{prefix}{name}.NAME" if inner and prop.get("type") == "object" else f"{prefix}{name}"
                below += [(ref, key, inner[0]) for ref in inner if ref not in self.shown]
                self.shown |= {ref: self._title(ref, key, inner) for ref in inner if ref not in self.shown}
                rows.append(self._row(prefix + name, prop, name in model.get("required", ()), inner))
        yield model["description"]
        if len(rows) > 2:
            yield "\n".join(f"| {' | '.join(row)} |" for row in rows)
        if first and same:
            yield f"{', '.join(same)}: as with `kind={_kind(first)}`."
        for ref, key, other in below:
            yield f"### {self.shown[ref]}"
            yield from self.section(self.models[ref], f"{key}.", self.models[other] if ref != other else None)

    def _title(self, ref: str, key: str, kinds: Sequence[str]) -> str:
        return f"`{key}.kind={_kind(self.models[ref])}`" if len(kinds) > 1 else f"`{key}`{self.suffix}"

    def _row(self, key: str, prop: Schema, required: bool, inner: Sequence[str]) -> list[str]:
        default = f"`{_shown(prop['default'])}`" if "default" in prop else "required" if required else "depends"
        told = f"{_choices(prop)}{prop['description']}{_bounds(prop)}"
        # GitHub's anchor for a heading.
        links = [f"(#{re.sub(r'[^a-z0-9_ -]', '', self.shown[ref].lower()).replace(' ', '-')})" for ref in inner]
        if len(inner) > 1:
            kinds = ", ".join(f"[{_kind(self.models[ref])}]{link}" for ref, link in zip(inner, links, strict=True))
            return [f"`{key}`", f"`kind: {prop['default']['kind']}`", f"{told}: {kinds}"]
        if inner:
            return [f"[`{key}`]{links[0]}", default if default == "`null`" else "", told]
        return [f"`{key}`", default, told]


def _kind(model: Schema) -> str:
    return str(model["properties"]["kind"]["const"])


def _shown(value: Any) -> str:
    if isinstance(value, list):
        return f"[{', '.join(map(_shown, value))}]"
    return value if isinstance(value, str) and value else json.dumps(value)


def _choices(prop: Schema) -> str:
    given = prop.get("anyOf", [prop])[0]  # the alternative that is not null
    found = [f"`{choice}`" for choice in given.get("items", given).get("enum", ())]
    return f"{'list of ' if 'items' in given else ''}{', '.join(found[:-1])} or {found[-1]}: " if found else ""


def _bounds(prop: Schema) -> str:
    given = prop.get("anyOf", [prop])[0]
    low, high = (given.get(f"exclusive{end}", given.get(end.lower())) for end in ("Minimum", "Maximum"))
    above, below = ("above " * ("exclusiveMinimum" in given), "below " * ("exclusiveMaximum" in given))
    if high is not None and high <= _GUARD:
        return f"; {above}{low:g} to {below}{high:g}" if low is not None else f"; at most {high:g}"
    return f"; {above or 'at least '}{low:g}" if low and low > 1 else ""


def main(path: Annotated[Path, typer.Argument(help="Markdown to write.")] = Path("docs/configuration.md")) -> None:
    """Write the page of all keys.

    Example: `python -m docs.configuration`
    """
    write_whole(path, page())


if __name__ == "__main__":
    run_script(main)
