"""Every configuration key is described, and docs/configuration.md lists all of them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from synthetic import CONFIG

from asr.config import Config, ExperimentConfig, to_yaml, validate
from docs.configuration import page

TEXT = (Path(__file__).parents[1] / "docs" / "configuration.md").read_text(encoding="utf-8")


def options(kind: type[Config] = Config) -> Iterator[type[Config]]:
    """Yield the configuration models of asr.config."""
    for below in kind.__subclasses__():
        yield from [below] if below.__module__.startswith("asr.config.") else []
        yield from options(below)


@pytest.mark.parametrize("kind", sorted(set(options()), key=lambda kind: kind.__name__))
def test_every_key_is_described(kind: type[Config]) -> None:
    assert kind.__doc__
    assert [name for name, field in kind.model_fields.items() if not field.description] == []


def test_configuration_page_is_up_to_date() -> None:
    assert page() == TEXT, "run python -m docs.configuration"


def keys(tree: dict[str, Any], prefix: str = "") -> Iterator[str]:
    for name, value in tree.items():
        yield prefix + name
        if isinstance(value, dict):
            yield from keys(value, f"{prefix}{name}.")


def test_every_printed_key_is_on_the_page() -> None:
    tree = yaml.safe_load(CONFIG.format(folder="a", train="b", dev="c"))
    printed = yaml.safe_load(to_yaml(validate(ExperimentConfig, tree, "here")))
    told = re.findall(r"^\| \[?`([\w.]+)`", TEXT, re.MULTILINE)
    kinds = {"features.kind", "model.decoder.kind"}  # these are in titles
    assert set(keys(printed)) - kinds <= set(told)
    assert all(f"### `{kind}=" in TEXT for kind in kinds)


def test_links_point_to_titles() -> None:
    titles = re.findall(r"^##+ (.+)$", TEXT, re.MULTILINE)
    anchors = [re.sub(r"[^\w -]", "", title).lower().replace(" ", "-") for title in titles]
    assert len(set(anchors)) == len(anchors)
    assert set(re.findall(r"\]\(#([^)]+)\)", TEXT)) <= set(anchors)
