"""Import the weights of other projects, from files or by name, as model folders: Whisper and Speech2Text."""

from __future__ import annotations

from asr.pretrained.convert import import_model
from asr.pretrained.find import find_model
from asr.pretrained.silence import resettled, with_padding

__all__ = ["find_model", "import_model", "resettled", "with_padding"]
