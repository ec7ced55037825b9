"""What a file holds, by the end of its name."""

from __future__ import annotations

import mimetypes

# Python's own table alone, so that every machine sees the same files.
_TYPES = mimetypes.MimeTypes(filenames=())


def audio_by_name(name: str) -> bool | None:
    """Whether a file is audio or video; None if its name does not tell."""
    kind, packing = _TYPES.guess_type(name)
    if packing is not None:
        return False
    return None if kind is None else kind.startswith(("audio/", "video/"))
