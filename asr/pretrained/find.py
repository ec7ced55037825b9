"""Find the model folder for a name: a folder as it is, otherwise one from the cache, which is filled on first use."""

from __future__ import annotations

import os
import secrets
import shutil
import time
from contextlib import suppress
from pathlib import Path

from asr.checkpoint import CONFIG
from asr.errors import CheckpointError, printable
from asr.files import make_folder
from asr.pretrained.convert import import_model
from asr.pretrained.fetch import fetch, known_name, no_name

STALE_S = 24 * 3600  # a temporary folder older than this was left behind by a killed program


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
    if not (cached / CONFIG).is_file():
        _import_into(cached, fetch(known))
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


def _import_into(folder: Path, source: Path) -> None:
    """Import under a temporary name beside `folder`, then rename, so that others see the whole model or nothing."""
    try:
        make_folder(folder.parent)
        _sweep(folder.parent)
        temporary = folder.with_name(f".{folder.name}-{secrets.token_hex(4)}")
        try:
            import_model(source, temporary)
            _rename(temporary, folder)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
    except OSError as e:
        hint = "ASR_CACHE names another folder for imported models"
        raise CheckpointError(f"{e.filename or folder}: cannot be written: {e.strerror}; {hint}") from None


def _rename(temporary: Path, folder: Path) -> None:
    try:
        os.rename(temporary, folder)
    except OSError:
        if not (folder / CONFIG).is_file():  # otherwise another program was faster
            raise


def _sweep(folder: Path) -> None:
    for path in folder.glob(".*-????????"):
        with suppress(FileNotFoundError):  # another program has just renamed its own folder
            if time.time() - path.stat().st_mtime > STALE_S:
                shutil.rmtree(path, ignore_errors=True)
