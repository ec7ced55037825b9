"""From what stands on the command line to audio files and a recogniser."""

from __future__ import annotations

import glob
import math
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import typer

from asr.errors import ConfigError, printable
from asr.files import audio_in

if TYPE_CHECKING:
    from asr.config import Config
    from asr.model.precision import Precision
    from asr.recognizer import Recognizer

C = TypeVar("C", bound="Config")


def names(text: str) -> list[str]:
    """The parts of 'a,b'."""
    return [name.strip() for name in text.split(",") if name.strip()]


def parse_seconds(text: str) -> float | None:
    """The seconds of --batch-seconds, None for auto."""
    if text == "auto":
        return None
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 0 < seconds < math.inf:
        raise ConfigError(f"--batch-seconds {printable(text)}: give auto, or seconds above 0")
    return seconds


def load_recognizer(model: Path, device: str, dtype: Precision | Literal["auto"], **options: Any) -> Recognizer:
    """A recogniser on a device, with the options that are not None in place of the model's own."""
    from asr import loading

    given = {name: value for name, value in options.items() if value is not None}
    return loading.load_model(model, device=device, dtype=dtype, **given)


def read_experiment(kind: type[C], path: Path, changes: list[str] | None, print_config: bool) -> C:
    """The experiment of a YAML with changes; with --print-config it is printed, and the command ends."""
    from asr.config import read_config, to_yaml

    experiment = read_config(kind, path, changes or [])
    if print_config:
        print(to_yaml(experiment), end="")
        raise typer.Exit
    return experiment


def find_audio(inputs: list[str]) -> tuple[dict[str, str], list[str], list[str]]:
    """Find files, problems and remarks: files as given, folders and globs as what is in them, sorted, each once.

    Each file comes with its place below --out: its path within the folder that was given, else its name.  Of a folder,
    see `audio_in`.
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
