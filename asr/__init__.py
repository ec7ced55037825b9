"""Speech-to-text with attention models: training, decoding and scoring."""

from __future__ import annotations

from typing import TYPE_CHECKING

__version__ = "0.1.0"
__all__ = ["Recognizer", "load_model", "score"]

if TYPE_CHECKING:
    from asr.loading import load_model
    from asr.recognizer import Recognizer
    from asr.scoring import score
else:
    _HOMES = {"Recognizer": "asr.recognizer", "load_model": "asr.loading", "score": "asr.scoring"}

    def __getattr__(name: str) -> object:
        # Imported at first use, so that `asr --help` and the scorer do not load torch.
        if name not in _HOMES:
            raise AttributeError(f"module 'asr' has no attribute {name!r}")
        from importlib import import_module

        return getattr(import_module(_HOMES[name]), name)
