"""Turning command-line arguments into audio files and settings."""

from __future__ import annotations

import glob
import os
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import typer

from asr.errors import printable
from asr.files import audio_in

if TYPE_CHECKING:
    from asr.config import Config

C = TypeVar("C", bound="Config")


def names(text: str) -> list[str]:
    """Split a comma-separated list such as 'a,b'."""
    return [name.strip() for name in text.split(",") if name.strip()]


def read_experiment(kind: type[C], path: Path, changes: list[str] | None, print_config: bool) -> C:
    """Read an experiment from YAML and apply changes; with --print-config, print it and end the command."""
    from asr.config import read_config, to_yaml

    experiment = read_config(kind, path, changes or [])
    if print_config:
        print(to_yaml(experiment), end="")
        raise typer.Exit
    return experiment


def find_audio(inputs: list[str]) -> tuple[dict[str, str], list[str], list[str]]:
    """Expand files, folders and globs into a mapping of files, a list of problems and a list of remarks.

    Each file occurs once, with its place below --out: its path within the folder that was given, else its name.
    Folders and globs are expanded in sorted order; `audio_in` says which files of a folder count.
    """
    files: dict[str, str] = {}
    seen: set[str] = set()
    problems: list[str] = []
    remarks: list[str] = []
    for text in inputs:
        if text == "-" or os.path.lexists(text) or not glob.has_magic(text):
            matches = [text]
        else:
            matches = sorted(glob.glob(text, recursive=True))
            problems += [] if matches else [f"{printable(text)}: no file matches"]
        for match in matches:
            folder = audio_in(match) if os.path.isdir(match) else None
            for path in folder.files if folder else [match]:
                if os.path.abspath(path) not in seen:
                    files[path] = os.path.relpath(path, match) if folder else os.path.basename(path)
                    seen.add(os.path.abspath(path))
            problems += folder.problems if folder else []
            remarks += folder.remarks if folder else []
    return files, problems, remarks
