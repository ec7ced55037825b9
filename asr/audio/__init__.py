"""Decoding of audio files: `open_audio` reads them at once, `stream_audio` block by block.

`open_audio_within` decodes a copy of a file in an archive, and `audio_tracks` lists the audio tracks of a container.
There is no other way in: the bytes of a file are never parsed in this process.  A child process decodes them
(asr/audio/program.py); it can be killed, has a memory limit, and answers with plain numbers.
"""

from asr.audio.files import (
    MAX_BYTES,
    TIMEOUT_S,
    Audio,
    AudioLength,
    Readable,
    audio_length,
    open_audio,
    open_audio_within,
)
from asr.audio.program import RATES_HZ
from asr.audio.stream import AudioStream, stream_audio
from asr.audio.tracks import Track, Tracks, audio_tracks

__all__ = [
    "MAX_BYTES",
    "RATES_HZ",
    "TIMEOUT_S",
    "Audio",
    "AudioLength",
    "AudioStream",
    "Readable",
    "Track",
    "Tracks",
    "audio_length",
    "audio_tracks",
    "open_audio",
    "open_audio_within",
    "stream_audio",
]
