"""Reading recordings block by block on demand, so that a file of any length takes little memory.

Shapes: N samples.
"""

from __future__ import annotations

import json
import os
import sys
import weakref
from typing import Any

import numpy as np
from numpy.typing import NDArray

from asr.audio.child import FAILURES, Decoder, Patience, borrow, give_back
from asr.audio.files import TIMEOUT_S, Readable, error_about, problem_of, request_for, temporary_copy
from asr.audio.program import END, SAMPLES, START
from asr.errors import AudioError, printable

STDIN = "standard input"


class AudioStream:
    """An iterator of the blocks of a recording, mono float32 (N,) at the file's own rate.

    sample_rate_hz: that rate.  duration_s: length according to the header, None if it does not say.  Close the stream,
    or use it in a `with` statement, unless it is read to its end.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        block_s: float,
        timeout_s: float,
        track: int = 0,
        name: str | os.PathLike[str] | None = None,
    ) -> None:
        self._name, self._timeout_s = path if name is None else name, timeout_s
        self._parts: list[NDArray[np.float32]] = []
        self._held = 0
        self._problem = problem_of(path)
        self._decoder: Decoder | None = None
        start = None
        if self._problem is None:
            self._decoder = borrow()
            self._stop = weakref.finalize(self, self._decoder.stop)
            start = self._next_message(START, request_for(path, timeout_s, 1 << 62, stream=True, track=track))
        if start is None:
            raise error_about(self._name, self._problem or "it holds no samples")
        header = json.loads(start)
        self.sample_rate_hz = int(header["rate"])
        self.duration_s: float | None = header["duration_s"]
        self._size = max(1, round(block_s * self.sample_rate_hz))

    def __iter__(self) -> AudioStream:
        return self

    def __next__(self) -> NDArray[np.float32]:
        while self._held < self._size and (data := self._next_message(SAMPLES)) is not None:
            self._parts.append(np.frombuffer(data, dtype=np.float32))
            self._held += len(self._parts[-1])
        if self._held:
            return self._take()
        if self._problem is not None:
            error, self._problem = error_about(self._name, self._problem), None
            raise error
        raise StopIteration

    def __enter__(self) -> AudioStream:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Stop reading, and drop blocks that have not been requested yet."""
        self._parts, self._held, self._decoder, self._problem = [], 0, None, None
        self._stop()

    def _take(self) -> NDArray[np.float32]:
        samples_N = np.concatenate(self._parts)
        block_N, rest_N = samples_N[: self._size], samples_N[self._size :].copy()
        self._parts, self._held = [rest_N], len(rest_N)
        return block_N

    def _next_message(self, expected: bytes, request: dict[str, Any] | None = None) -> bytearray | None:
        """Return the data of the next message; None at the end, where `_problem` says what is wrong, if anything."""
        decoder = self._decoder
        if decoder is None:
            return None
        try:
            if request is not None:
                decoder.send(request)
            # The time between two requests for blocks does not count, and ffmpeg has its own limit inside the child.
            kind, data = decoder.message(Patience(self._timeout_s + 0.5))
            if kind == expected:
                return data
            if kind != END:
                raise ValueError("broken protocol")
            self._problem = json.loads(data).get("error")
        except FAILURES as error:
            self._problem = decoder.fail(error, f"{self._timeout_s:g} s to decode a block")
        except BaseException:
            self.close()  # the rest of a message may still be in the pipe
            raise
        else:
            self._stop.detach()
            give_back(decoder)
        self._decoder = None
        return None


def stream_audio(
    path: str | os.PathLike[str] | Readable,
    *,
    track: int = 0,
    block_s: float = 30.0,
    timeout_s: float = TIMEOUT_S,
    name: str | None = None,
) -> AudioStream:
    """Decode a recording of any length in blocks of `block_s` seconds; "-" stands for standard input.

    `track` is the number, from 0, of an audio track of the container (see `audio_tracks`); `name` is what messages call
    a file that is given open.

    Concatenated, the blocks are what `open_audio` returns.  Decoding runs at most a block ahead, so little memory is
    needed; several streams may be open at a time.  Standard input, like any open file, is first copied to a temporary
    file, because some formats, such as MP4, are read from both ends; the copy is deleted before this function returns.
    Raises AudioError as `open_audio` does, both here and from the stream, with these differences.  A file that ends
    early or is damaged yields the blocks that can be decoded, and then the error.  Silence is not an error, as only the
    end of the recording shows whether all of it is silent; callers can check the blocks.  The length is unlimited, and
    `timeout_s` limits the time to decode one block.
    """
    if not 0 < block_s < 1e6:
        raise AudioError(f"{printable(name or path)}: block_s must be above 0 and below 1e6, not {block_s}")
    if isinstance(path, str | os.PathLike):
        if os.fspath(path) != "-":
            return AudioStream(path, block_s, timeout_s, track)
        path, name = _standard_input(), STDIN
    name = name or "open file"
    with temporary_copy(path, name) as copy:
        return AudioStream(copy, block_s, timeout_s, track, name)


def _standard_input() -> Readable:
    if sys.stdin is None or sys.stdin.isatty():
        raise AudioError(f"{STDIN}: nothing is piped in")
    return sys.stdin.buffer
