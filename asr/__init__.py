"""Speech in, text out: attention models of speech, trained, applied and scored."""

from __future__ import annotations

from typing import Any

__version__ = "0.1.0"
__all__ = ["Recognizer", "load_model", "score"]

_HOMES = {
    "Recognizer": ("asr.recognizer", "Recognizer"),
    "load_model": ("asr.loading", "load_model"),
    "score": ("asr.scoring", "score"),
}


def __getattr__(name: str) -> Any:
    # Loaded at first use: `asr --help` and the scorer need no torch.
    if name not in _HOMES:
        raise AttributeError(f"module 'asr' has no attribute {name!r}")
    from importlib import import_module

    module, attribute = _HOMES[name]
    return getattr(import_module(module), attribute)
