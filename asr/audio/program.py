"""The process that decodes audio: it reads requests from standard input and writes samples to standard output.

asr.audio starts this file as a script, so everything is in this one file, and it imports nothing from the package. The
process holds nothing worth stealing, can write no file, and may be killed at any moment.  A request is a four-byte
length and JSON; an answer is any number of SAMPLES messages (mono float32) and one END message (JSON), each preceded by
its kind and length.  The answer to a request for a stream starts with a START message (JSON: rate and duration) and is
sent as fast as it is read.  A request to describe is answered by an END message alone, which lists the audio tracks.

Shapes: T frames (one sample of each channel), C channels.
"""

from __future__ import annotations

import io
import json
import math
import os
import re
import resource
import selectors
import shutil
import signal
import struct
import subprocess
import sys
import time
import zlib
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

HEADER = struct.Struct("<cI")
START, SAMPLES, END = b"h", b"s", b"j"

MEMORY_LIMIT_BYTES = 4 << 30
BLOCK_SAMPLES, STREAM_BLOCK_SAMPLES = 1 << 20, 1 << 16
RATES_HZ = (1000, 1_000_000)
# If less than this is missing, the writer was sloppy; if more, the file was cut off.
SLACK_S = 0.1
SLACK_BYTES = 1024
# After a seek an MP3 decoder lacks state from earlier frames; after this many samples its output is right again.
MP3_RUN_UP = 16 * 1152

# The formats that ffmpeg may detect. Left out are playlists, scripts, pictures and devices: everything
# that names other files or hosts (hls, concat, dash, sdp, lavfi) or that turns plain text into a stream.
FFMPEG_FORMATS = (
    "aac,ac3,aiff,amr,amrnb,amrwb,ape,asf,au,avi,caf,dsf,dts,dtshd,eac3,flac,flv,gsm,iff,ircam,loas,matroska,"
    "mlp,mov,mp3,mpc,mpc8,mpeg,mpegts,mxf,nistsphere,nut,ogg,oma,qcp,rm,sox,tak,truehd,tta,voc,vqf,w64,wav,"
    "wtv,wv,xwma"
)


class Refused(Exception):  # noqa: N818 - an answer, not an error
    """The file cannot be used; the message says why and does not repeat the file's name."""


class Unknown(Exception):  # noqa: N818
    """libsndfile cannot read the file, or not further; another decoder may."""


class Sink:
    """Cuts the wanted part out of the decoded blocks, averages the wanted channels and sends the result."""

    def __init__(self, out: int, request: dict[str, Any]) -> None:
        self.out = out
        self.offset_s: float = request["offset_s"]
        self.duration_s: float | None = request["duration_s"]
        self.max_samples: int = request["max_bytes"] // 4
        self.count_only: bool = request["count_only"]
        self.stream: bool = request["stream"]
        self.timeout_s: float = request["timeout_s"]
        self.track: int = request["track"]
        self.channels: list[int] | None = request["channels"]
        self.whole = self.offset_s == 0 and self.duration_s is None
        self.rate = self.first = self.seen = self.sent = self.used = 0
        self.last: int | None = None
        self.silent = self.zero = True
        self.said_s: float | None = None  # the duration according to ffmpeg
        self.problem: str | None = None
        self.start_clock(self.timeout_s)

    def start_clock(self, seconds: float) -> None:
        """Start the time limit; for a stream it restarts with each block."""
        self.deadline = time.monotonic() + seconds
        # The parent kills this process at the time limit; the alarm is for when the parent is gone.
        signal.setitimer(signal.ITIMER_REAL, max(seconds, 0) + 5)

    def refuse(self, problem: str) -> None:
        """Report that the file is not whole: at once, or, for a stream, after its samples."""
        if not self.stream:
            raise Refused(problem)
        self.problem = self.problem or problem

    def begin(self, rate: int, frames: int | None) -> None:
        """Set the wanted range in frames; `frames` is how many there are, if known.

        A second decoder starts at frame 0 again, at the rate of the first; what that has read is not used twice.
        """
        if self.rate:
            self.used, self.seen = self.seen, 0
            return
        # Resampling from 1 Hz would blow up a small file until it fills the memory.
        if not RATES_HZ[0] <= rate <= RATES_HZ[1]:
            raise Refused(f"its header gives a sample rate of {rate} Hz, which no recording of speech has")
        self.rate = rate
        self.first = round(self.offset_s * rate)
        if self.duration_s is not None:
            # Both ends are rounded from absolute times, so consecutive parts tile the recording exactly.
            self.last = max(round((self.offset_s + self.duration_s) * rate), self.first + 1)
        if self.stream:
            duration_s = frames / rate if frames else self.said_s
            self._tell(START, json.dumps({"rate": rate, "duration_s": duration_s}).encode())
        if frames is None:
            return
        if frames > 0 and self.first >= frames:
            raise Refused(f"there is nothing at {self.offset_s:g} s: it lasts {frames / rate:.3f} s")
        wanted = (frames if self.last is None else min(frames, self.last)) - self.first
        if wanted > self.max_samples and not self.count_only:
            raise Refused(f"too long to read at once ({wanted / rate / 3600:.1f} h); {self.advice}")

    @property
    def advice(self) -> str:
        hours = self.max_samples / max(self.rate, 1) / 3600
        return f"read parts of at most {hours:.1f} h, by offset_s and duration_s"

    def take(self, block_TC: Any) -> bool:
        """Use a block that starts at frame `seen`; return False once nothing more is wanted."""
        start = self.seen
        self.seen += len(block_TC)
        if self.count_only:
            return True
        stop = len(block_TC) if self.last is None else min(len(block_TC), self.last - start)
        part_TC = block_TC[max(self.first - start, self.used - start, 0) : max(stop, 0)]
        if len(part_TC):
            self._send(part_TC)
        return self.last is None or self.seen < self.last

    def _send(self, part_TC: Any) -> None:
        if self.channels is not None:
            if max(self.channels) >= part_TC.shape[1]:
                raise Refused(f"it holds no channel {max(self.channels)}: it has {part_TC.shape[1]}, counted from 0")
            part_TC = part_TC[:, self.channels]
        mono_T = part_TC[:, 0] if part_TC.shape[1] == 1 else part_TC.mean(axis=1, dtype=np.float32)
        mono_T = np.ascontiguousarray(mono_T, dtype="<f4")
        low, high = float(mono_T.min()), float(mono_T.max())
        if not (math.isfinite(low) and math.isfinite(high)):
            raise Refused("it has samples that are not finite numbers (NaN or infinite)")
        if low or high:
            self.silent = False
        elif self.zero and part_TC.any():
            self.zero = False
        self.sent += len(mono_T)
        if self.sent > self.max_samples:
            raise Refused(f"too long to read at once; {self.advice}")
        self._tell(SAMPLES, mono_T.data.cast("B"))

    def _tell(self, kind: bytes, data: bytes | memoryview) -> None:
        left_s = self.deadline - time.monotonic()
        signal.setitimer(signal.ITIMER_REAL, 0)  # the reader may take as long as it likes, or be stopped (Ctrl-Z)
        _write(self.out, HEADER.pack(kind, len(data)), data)
        self.start_clock(self.timeout_s if self.stream else left_s)

    def finish(self, promised: int | None) -> dict[str, Any]:
        """Judge what came and return the answer for the parent; the header gives `promised` frames."""
        if self.problem is not None:
            raise Refused(self.problem)
        if promised is not None:
            promised = promised if self.last is None else min(promised, self.last)
            if promised - self.seen > SLACK_S * self.rate:
                there = f"{self.seen / self.rate:.2f} s are there"
                raise Refused(f"truncated: its header promises {promised / self.rate:.2f} s, {there}")
        if 0 < self.seen <= self.first:
            raise Refused(f"there is nothing at {self.offset_s:g} s: it lasts {self.seen / self.rate:.3f} s")
        if self.seen == 0:
            raise Refused("it holds no samples")
        # Part of a good recording may be silent; a whole file of silence is a failed recording.
        if self.silent and self.whole and not self.count_only and not self.stream:
            why = "every sample is zero" if self.zero else "its channels cancel out when they are averaged"
            raise Refused(f"silent: {why}")
        return {"rate": self.rate, "frames": self.seen}


def decode(request: dict[str, Any], sink: Sink) -> dict[str, Any]:
    """Decode one file into `sink` with libsndfile, or with ffmpeg if libsndfile does not know the format."""
    path = os.fsencode(request["path"])
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise Refused(f"cannot be opened: {error.strerror}") from None
    try:
        if sink.track:
            raise Unknown("it reads only the first track")
        check_ogg(fd, sink)
        check_caf(fd, sink)
        return described_by_libsndfile(fd) if request["describe"] else with_libsndfile(fd, sink)
    except Unknown as unknown:
        program = "ffprobe" if request["describe"] else "ffmpeg"
        found = shutil.which(program, path=request["search_path"])
        if found is None:
            advice = "install ffmpeg, which reads more formats"
            if program == "ffprobe" and shutil.which("ffmpeg", path=request["search_path"]):
                advice = "install ffprobe, too, which comes with most packages of ffmpeg"
            raise Refused(f"libsndfile cannot read it ({unknown}); {advice}") from None
        if request["describe"]:
            return described_by_ffprobe(found, path, sink.timeout_s, str(unknown))
        return with_ffmpeg(found, path, fd, sink, str(unknown))
    finally:
        os.close(fd)


# --- description ----------------------------------------------------------------------------------------

_MOST_TRACKS, _MOST_TITLE = 64, 100


def described_by_libsndfile(fd: int) -> dict[str, Any]:
    """Describe an open file that libsndfile reads: one track, of unknown language."""
    try:
        with opened(fd) as file:
            if file.frames >= 1 << 62:
                raise Unknown("a FLAC stream of unknown length")
            return {"plain": True, "duration_s": file.frames / file.samplerate, "tracks": [{}]}
    except soundfile.SoundFileError as error:
        raise Unknown(_words(error)) from None


def described_by_ffprobe(ffprobe: str, path: bytes, timeout_s: float, reason: str) -> dict[str, Any]:
    """Describe the audio streams of a container, with their language and title if it gives them."""
    entries = "stream=index:stream_tags=language,title:format=duration"
    command: list[str | bytes] = [ffprobe, "-hide_banner", "-loglevel", "error", *_SAFELY, "-select_streams", "a"]
    command += ["-show_entries", entries, "-of", "json", b"file:" + path]
    try:
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=timeout_s, check=False)
    except subprocess.TimeoutExpired:
        raise Refused("ffprobe took longer than the time limit") from None
    if done.returncode:
        raise Refused(_ffmpeg_reason(done.stderr.decode("utf-8", "replace"), done.returncode, reason, 0))
    said = json.loads(done.stdout)
    streams = said.get("streams") or []
    if not streams:
        raise Refused("it holds no audio")
    duration = (said.get("format") or {}).get("duration")
    tracks = [
        {key: str(value)[:_MOST_TITLE] for key, value in (stream.get("tags") or {}).items()}
        for stream in streams[:_MOST_TRACKS]
    ]
    return {"plain": False, "duration_s": float(duration) if duration else None, "tracks": tracks}


# --- libsndfile ---------------------------------------------------------------------------------------


def with_libsndfile(fd: int, sink: Sink) -> dict[str, Any]:
    """Decode an open file; libsndfile is not given its name, from which it might guess a raw format."""
    try:
        file = opened(fd)
    except soundfile.SoundFileError as error:
        raise Unknown(_words(error)) from None
    with file:
        check_sizes(fd, file, sink)
        if file.frames >= 1 << 62:
            raise Unknown("a FLAC stream of unknown length")
        sink.begin(file.samplerate, file.frames)
        if sink.count_only:
            sink.seen = file.frames
            return sink.finish(file.frames)
        try:
            if sink.first:
                run_up = MP3_RUN_UP if file.format == "MP3" else 0
                sink.seen = file.seek(max(sink.first - run_up, 0))
            # After each read soundfile seeks to the current position, which makes libsndfile restart an MP3 stream,
            # with a click, unless it cannot seek.
            file.seekable = lambda: False
            # With the same step for a stream, ffmpeg goes on at the same sample if libsndfile cannot.
            small = sink.stream or file.subtype == "OPUS"
            step = max((STREAM_BLOCK_SAMPLES if small else BLOCK_SAMPLES) // file.channels, 1)
            end = file.frames if sink.last is None else min(sink.last, file.frames)
            wanted = True
            while wanted and sink.seen < end:  # what is asked for beyond the end would be filled with zeros
                block_TC = file.read(min(step, end - sink.seen), dtype="float32", always_2d=True)
                wanted = len(block_TC) > 0 and sink.take(block_TC)
        except soundfile.SoundFileError as error:
            check_ogg_pages(fd, sink)
            if file.subtype == "OPUS" and sink.problem is None:  # as ffmpeg writes it at times; ffmpeg reads it, too
                raise Unknown("a granule position that is too early") from None
            raise Refused(sink.problem or f"damaged: {_words(error)}") from None
        if check_ogg_pages(fd, sink):
            raise Unknown("a stream that begins again")  # it has read the first alone
        return sink.finish(file.frames)


def opened(fd: int) -> Any:
    """Open a file with libsndfile, which would find no audio in a WAV file whose writer never filled in the sizes."""
    at = empty_size(fd)
    return soundfile.SoundFile(fd if at is None else _SizeUnknown(fd, at), closefd=False)


_WAV_CHUNK, _MOST_CHUNKS = struct.Struct("<4sI"), 1000


def empty_size(fd: int) -> int | None:
    """Return the position of the size of a WAV file's audio if it is 0 though the file goes on, else None.

    A recorder writes 0 first, and the size when it stops.  If the whole file has the size that its header gives, it was
    closed, and holds no audio indeed.
    """
    kind, whole = _WAV_CHUNK.unpack(os.pread(fd, 8, 0).ljust(8))
    if kind != b"RIFF" or os.pread(fd, 4, 8) != b"WAVE" or whole + 8 == os.fstat(fd).st_size:
        return None
    found = _chunk(fd, _WAV_CHUNK, 12, b"data", multiple=2)
    return found[0] - 4 if found is not None and found[1] == 0 else None


def _chunk(fd: int, header: struct.Struct, at: int, wanted: bytes, multiple: int = 1) -> tuple[int, int] | None:
    """Return where the wanted one of the chunks from `at` on begins, after its header, and the size that this gives."""
    last = os.fstat(fd).st_size - header.size
    for _ in range(_MOST_CHUNKS):
        if not 0 <= at <= last:
            return None
        kind, size = header.unpack(os.pread(fd, header.size, at))
        at += header.size
        if kind == wanted:
            return at, size
        at += -(-size // multiple) * multiple
    return None


class _SizeUnknown(io.FileIO):
    """A file in which the four bytes at a position read as the size 2^32 - 1, which stands for an unknown one."""

    def __init__(self, fd: int, at: int) -> None:
        super().__init__(fd, closefd=False)
        self.at = at

    def readinto(self, buffer: Any) -> int | None:
        """Read as FileIO does, but for those bytes."""
        start = self.tell()
        count = super().readinto(buffer)
        first, end = max(self.at, start), min(self.at + 4, start + (count or 0))
        if first < end:
            memoryview(buffer)[first - start : end - start] = b"\xff" * (end - first)
        return count


def _words(error: Exception) -> str:
    """Return libsndfile's message without its 'Error :' and the location in its own code."""
    words = getattr(error, "error_string", "") or "unknown format"
    return str(words).removeprefix("Error :").partition(":")[0].strip(" .")


_SIZES = re.compile(r"^\s*(?:data|SSND|Data Size|riff|Riff size)\s*: (\d+) \(should be (\d+)\)", re.MULTILINE)


def check_sizes(fd: int, file: Any, sink: Sink) -> None:
    """Refuse a file whose header promises more than it holds: libsndfile only notes that in its log.

    Zero, and the sizes around 2^31 and 2^32 that programs write when they cannot go back to fill in the right one,
    promise nothing: such a recording is read as far as it goes.
    """
    log = file.extra_info
    for promised, there in (map(int, pair) for pair in _SIZES.findall(log)):
        unknown = promised >= 1 << 62 or any(abs(promised - (1 << bits)) <= 1 << 16 for bits in (31, 32))
        if promised - there > SLACK_BYTES and not unknown:
            sink.refuse(f"truncated: its header promises {promised} bytes of audio, {there} are there")
    if "truncated file" in log:
        sink.refuse("truncated: it ends within its audio")
    if file.format == "NIST":
        count = re.search(rb"\nsample_count -i (\d{1,18})", os.pread(fd, 1024, 0))
        if count and int(count[1]) - file.frames > SLACK_S * file.samplerate:
            sink.refuse(f"truncated: its header promises {int(count[1])} samples, {file.frames} are there")


_OGG_PAGE = struct.Struct("<4sxBqIIIB")  # "OggS", flags, granule position, stream, number, checksum, segments
_OGG_SERIAL = slice(14, 18)


def check_ogg(fd: int, sink: Sink) -> None:
    """Refuse an Ogg file that ends within a page; one that lacks only its end mark was stopped, not cut off."""
    head = os.pread(fd, _OGG_PAGE.size, 0)
    if head[:4] != b"OggS":
        return
    size = os.fstat(fd).st_size
    longest = _OGG_PAGE.size + 255 + 255 * 255
    tail = os.pread(fd, longest, max(size - longest, 0))
    page = tail[tail.rfind(b"OggS") :]
    table = page[_OGG_PAGE.size :][: page[26]] if len(page) > 26 else b""
    if len(page) <= 26 or len(table) < page[26] or len(page) < _OGG_PAGE.size + len(table) + sum(table):
        sink.refuse("truncated: it ends within an Ogg page")
    if head[_OGG_SERIAL] != page[_OGG_SERIAL]:
        raise Unknown("several streams in a row")  # libsndfile would read only the first


_OGG_FIRST, _OGG_LAST = 2, 4
_REVERSED = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))


def check_ogg_pages(fd: int, sink: Sink) -> bool:
    """Refuse a whole Ogg file with damaged or missing pages, which libsndfile and ffmpeg leave out without a word.

    Other bytes between or after pages, such as padding and tags, do no harm if nothing is missing where they are: the
    next page has the next number, or the stream had ended.  Without them, numbers may jump after a header (granule
    position 0), as in a recording of a radio station, and may stay or go back, as some programs do not count.  Returns
    whether a stream begins again, as in files one after the other whose streams have the same number.
    """
    if not sink.whole or sink.count_only or os.pread(fd, 4, 0) != b"OggS":
        return False
    following: dict[int, tuple[int, bool]] = {}
    may_end, again = True, False
    for at, skipped, page in _ogg_pages(fd):
        lost = skipped and not may_end
        if page:
            if not _is_intact(page):
                sink.refuse(f"damaged: the checksum of its Ogg page at byte {at} is wrong")
                return False
            _, flags, granule, stream, number, *_ = _OGG_PAGE.unpack_from(page)
            expected, after_header = following.get(stream, (number, False))
            if flags & _OGG_FIRST:
                again |= stream in following
            else:
                gap = (number - expected) % (1 << 32)
                lost = gap > 0 if skipped else 0 < gap < 1 << 31 and not after_header
            following[stream] = number + 1, granule == 0
            may_end = flags & _OGG_LAST or granule == 0
        if lost:
            sink.refuse(f"damaged: Ogg pages are missing before byte {at}")
            return False
    return again


def _ogg_pages(fd: int) -> Iterator[tuple[int, bool, bytes]]:
    """Yield each page with its position and whether bytes before it belong to no page; an empty one for the end."""
    skipped = False
    with open(fd, "rb", buffering=1 << 20, closefd=False) as file:
        file.seek(0)
        while head := file.read(_OGG_PAGE.size):
            at = file.tell() - len(head)
            if head[:4] == b"OggS":
                sizes = file.read(sum(head[26:]))
                yield at, skipped, head + sizes + file.read(sum(sizes))
                skipped = False
            else:
                more = head + file.read(1 << 16)
                found = more.find(b"OggS", 1)
                file.seek(at + (found if found > 0 else max(len(more) - 3, 1)))
                skipped = True
        yield file.tell(), skipped, b""


def _is_intact(page: bytes) -> bool:
    """Compare a page with its checksum (RFC 3533): zlib's, but for the order of bits and the inversions."""
    bits = page.translate(_REVERSED)
    crc = zlib.crc32(bits[26:], zlib.crc32(bytes(4), zlib.crc32(bits[:22], 0xFFFFFFFF)))
    return crc ^ 0xFFFFFFFF == int.from_bytes(bits[22:26], "big")


_CAF_CHUNK = struct.Struct(">4sq")


def check_caf(fd: int, sink: Sink) -> None:
    """Refuse a Core Audio file that ends within its audio; a size of -1 promises nothing."""
    if os.pread(fd, 4, 0) != b"caff":
        return
    found = _chunk(fd, _CAF_CHUNK, 8, b"data")
    if found is not None:
        (at, size), file_bytes = found, os.fstat(fd).st_size
        if size - (file_bytes - at) > SLACK_BYTES:
            sink.refuse(f"truncated: its header promises {size} bytes of audio, {file_bytes - at} are there")


# --- ffmpeg -------------------------------------------------------------------------------------------

# With `file:` in front any name is safe, even one with a colon or a leading dash.
_SAFELY = ("-protocol_whitelist", "file", "-format_whitelist", FFMPEG_FORMATS)


def with_ffmpeg(ffmpeg: str, path: bytes, fd: int, sink: Sink, reason: str) -> dict[str, Any]:
    """Decode the chosen audio stream, always from the start, since few formats can be entered exactly."""
    command: list[str | bytes] = [ffmpeg, "-nostdin", "-hide_banner", "-nostats", "-loglevel", "level+info"]
    command += ["-threads", "1"]
    command += [*_SAFELY, "-i", b"file:" + path]
    # The AU header gives rate and channels; averaging is done by `Sink`, in the same way for every format.
    command += ["-map", f"0:a:{sink.track}", "-f", "au", "-c:a", "pcm_f32be"]
    command += ["-ar", str(sink.rate)] if sink.rate else []  # another decoder has begun
    command += ["pipe:1"]
    pipe, null = subprocess.PIPE, subprocess.DEVNULL
    process = subprocess.Popen(command, stdin=null, stdout=pipe, stderr=pipe)
    try:
        stopped, errors = _pump(process, _AuReader(sink), _Log(sink))
        status = None if stopped else process.wait(max(sink.deadline - time.monotonic(), 0.1))
    except (TimeoutError, subprocess.TimeoutExpired):
        raise Refused("ffmpeg took longer than the time limit") from None
    finally:
        process.kill()
        with process:  # closes the pipes and waits
            pass
    if status:
        raise Refused(sink.problem or _ffmpeg_reason(errors, status, reason, sink.track))
    if not stopped and _CUT_SHORT.search(errors):
        raise Refused("truncated: ffmpeg finds it cut short")
    check_ogg_pages(fd, sink)
    return sink.finish(None)


class _AuReader:
    """Turns the bytes of an AU stream into blocks of frames."""

    def __init__(self, sink: Sink) -> None:
        self.sink = sink
        self.rest = b""
        self.channels = 0

    def feed(self, data: bytes) -> bool:
        """Use some bytes; return False once the sink wants no more."""
        data = self.rest + data
        if not self.channels:
            if len(data) < 24 or len(data) < int.from_bytes(data[4:8], "big"):
                self.rest = data
                return True
            _, start, _, _, rate, self.channels = struct.unpack_from(">4sIIIII", data)
            self.sink.begin(rate, None)
            data = data[start:]
        whole = len(data) - len(data) % (4 * self.channels)
        self.rest = data[whole:]
        block = np.frombuffer(data[:whole], dtype=">f4").astype("<f4")
        return self.sink.take(block.reshape(-1, self.channels)) if whole else True


# ffmpeg calls a packet that lacks its end corrupt.  In some formats that may be damage in the middle, too, and streams
# of AAC and CAF without a length may end anywhere.
_WRONG = re.compile(
    r"\[(?:error|fatal|panic)\] "
    r"|^\[(?!(?:mpegts|ogg|flv|wtv|aac|loas|caf) )\S+ @ \w+\] \[warning\] (?=Packet corrupt)"
)
_CUT_SHORT = re.compile(r"partial file|ended prematurely|truncat|packet corrupt|input/output error", re.IGNORECASE)
_DURATION = re.compile(r"\[info\]   Duration: (\d{1,6}):(\d\d):(\d\d\.\d+),")


class _Log:
    """Reads ffmpeg's log line by line: its errors, incomplete packets, and the duration that it reports."""

    def __init__(self, sink: Sink) -> None:
        self.sink = sink
        self.rest = b""
        self.errors = ""

    def feed(self, data: bytes) -> None:
        """Use some bytes."""
        *lines, rest = (self.rest + data).split(b"\n")
        self.rest = rest[-4096:]
        for line in lines:
            text = line.decode("utf-8", "replace")
            if found := _WRONG.search(text):
                self.errors = f"{self.errors}{text[found.end() :]}\n"[-4096:]
            elif self.sink.said_s is None and (found := _DURATION.match(text)):
                hours, minutes, seconds = map(float, found.groups())
                self.sink.said_s = hours * 3600 + minutes * 60 + seconds


def _pump(process: subprocess.Popen[bytes], reader: _AuReader, log: _Log) -> tuple[bool, str]:
    """Read both pipes to the end, or until nothing more is wanted; return whether it stopped early, and the errors."""
    assert process.stdout is not None
    assert process.stderr is not None
    with selectors.DefaultSelector() as selector:
        selector.register(process.stdout, selectors.EVENT_READ)
        selector.register(process.stderr, selectors.EVENT_READ)
        while selector.get_map():
            left = log.sink.deadline - time.monotonic()
            if left <= 0:
                raise TimeoutError
            # The log first: its duration must be sent before the first samples.
            for key, _ in sorted(selector.select(left), key=lambda ready: ready[0].fileobj is process.stdout):
                data = os.read(key.fd, 1 << 18)
                if not data:
                    selector.unregister(key.fileobj)
                elif key.fileobj is process.stderr:
                    log.feed(data)
                elif not reader.feed(data):
                    return True, ""
    log.feed(b"\n")
    return False, log.errors


def _ffmpeg_reason(errors: str, status: int, reason: str, track: int) -> str:
    if "matches no streams" in errors:
        return f"it holds no audio track {track}" if track else "it holds no audio"
    if status < 0:
        return f"ffmpeg crashed on it ({signal.Signals(-status).name})"
    lines = [line for line in errors.splitlines() if line.strip()] or [f"exit status {status}"]
    last = lines[-1].rpartition(": ")[2].strip()
    if "not on whitelist" in errors:
        last = "not a kind of audio file"
    return f"not audio that can be decoded (libsndfile: {reason}; ffmpeg: {last})"


# --- the pipe -----------------------------------------------------------------------------------------


def _write(fd: int, *parts: bytes | memoryview) -> None:
    for part in parts:
        view = memoryview(part)
        while view:
            view = view[os.write(fd, view) :]


def _read(fd: int, size: int) -> bytes:
    data = b""
    while len(data) < size:
        more = os.read(fd, size - len(data))
        if not more:
            os._exit(0)  # the other side has closed the pipe or died
        data += more
    return data


def _end(out: int, answer: dict[str, Any]) -> None:
    data = json.dumps(answer).encode()
    _write(out, HEADER.pack(END, len(data)) + data)


def _restrict() -> None:
    """Take away what a decoder does not need: unlimited memory, writing to files, core dumps."""
    for what, limit in (
        (resource.RLIMIT_AS, MEMORY_LIMIT_BYTES),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_NOFILE, 256),
    ):
        with suppress(ValueError, OSError):  # the limit is lower already, or the system lacks it
            resource.setrlimit(what, (limit, limit))


def serve(requests: int, out: int) -> None:
    """Answer requests until the pipe closes."""
    _end(out, {"ready": True})
    while True:
        request = json.loads(_read(requests, int.from_bytes(_read(requests, 4), "little")))
        try:
            answer = decode(request, Sink(out, request))
        except Refused as error:
            answer = {"error": str(error)}
        except MemoryError:
            answer = {"error": "decoding it takes more memory than a decoder may have"}
        except BrokenPipeError:
            return
        except Exception as error:  # no hostile file may end the service
            answer = {"error": f"the decoder failed on it ({type(error).__name__}: {error})"}
        signal.setitimer(signal.ITIMER_REAL, 0)
        _end(out, answer)


if __name__ == "__main__":
    # Hide the pipes, so that nothing that a library prints gets into the answers.
    requests, out = os.dup(0), os.dup(1)
    nothing = os.open(os.devnull, os.O_RDWR)
    os.dup2(nothing, 0)
    os.dup2(nothing, 1)
    sys.path += sys.argv[1:]
    try:
        import numpy as np
        import soundfile
    except Exception as error:
        _end(out, {"error": f"{type(error).__name__}: {error}"})
        sys.exit(1)
    _restrict()
    with suppress(BrokenPipeError):
        serve(requests, out)
