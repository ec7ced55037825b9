"""Find the model folder for a name: a folder as it is, otherwise one from the cache, which is filled on first use."""

from __future__ import annotations

import os
from pathlib import Path

from asr.checkpoint import CONFIG, WEIGHTS
from asr.errors import CheckpointError, printable
from asr.pretrained.convert import import_model
from asr.pretrained.fetch import fetch, known_name, no_name


def cache_folder() -> Path:
    """Return where imported models are kept: ASR_CACHE/models, else asr/models in XDG_CACHE_HOME, else in ~/.cache."""
    if own := os.environ.get("ASR_CACHE"):
        return Path(own) / "models"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "asr" / "models"


def find_model(name: str | Path) -> Path:
    """Return the model folder for `name`.

    Tried in this order: a model folder with that path; the cache (see cache_folder); an installed package that contains
    the weights; the Hugging Face hub, where `whisper-small` is openai/whisper-small and `s2t-small-librispeech-asr`
    facebook/s2t-small-librispeech-asr.  Models from the last two are imported into the cache.
    Raises CheckpointError, one line that says what to do, if nothing is found.
    """
    path = Path(name)
    if (path / CONFIG).is_file():
        return path
    known = known_name(str(name))
    if known is None or _is_something_else(path):
        raise CheckpointError(printable(f"{path}: no model folder ({CONFIG} is missing){_hint(path)}"))
    cached = cache_folder() / known
    if not _is_whole(cached):
        _import(fetch(known), cached)
    return cached


def _is_foreign(path: Path) -> bool:
    return path.suffix == ".pt" or any((path / file).is_file() for file in ("config.json", "model.bin"))


def _is_something_else(path: Path) -> bool:
    """Return whether `path` must be meant as a path, although it has the form of a name."""
    if len(path.parts) > 1:  # if a folder with the owner's name exists here, the rest is a mistyped path
        return path.exists() or path.parent.is_dir()
    return path.exists() and (path.is_file() or _is_foreign(path))


def _hint(path: Path) -> str:
    if (path / "model" / CONFIG).is_file():
        return f"; did you mean {path / 'model'}?"
    if _is_foreign(path) and path.exists():
        return f"; first: asr import {path} NEW-FOLDER"
    if len(path.parts) == 1 and not path.exists():
        return f", and {no_name(str(path))}"
    if not path.exists():
        return f"; asr train with out={path.parent} makes it" if path.name == "model" else "; asr train makes one"
    return ""


def _is_whole(folder: Path) -> bool:
    return (folder / WEIGHTS).is_file()  # they are written last, so a killed import is done again


def _import(source: Path, folder: Path) -> None:
    try:
        import_model(source, folder)
    except OSError as e:
        hint = "ASR_CACHE names another folder for imported models"
        raise CheckpointError(f"{e.filename or folder}: cannot be written: {e.strerror}; {hint}") from None
    except CheckpointError:
        if not _is_whole(folder):  # otherwise another program was faster
            raise
