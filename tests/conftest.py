"""Fixtures and settings shared by several test files."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import settings
from synthetic import experiment_file

settings.register_profile("untimed", deadline=None)  # a slow, busy machine must not fail a test
settings.load_profile("untimed")


@pytest.fixture(autouse=True)
def seeded() -> None:
    """Seed torch, so that a test draws the same numbers alone and among others."""
    torch.manual_seed(0)


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The YAML file of a small experiment on 40 clips."""
    return experiment_file(tmp_path_factory.mktemp("corpus"))
