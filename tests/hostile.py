"""Files that mean harm or are merely broken, made by code, and a way to watch what a program does with them.

`hostile_audio` and `hostile_archives` write into a folder and give each file with a pattern that the one line
about it must match. `audited` runs a function over files in a fresh process with an audit hook.
"""

from __future__ import annotations

import gzip
import io
import json
import os
import struct
import subprocess
import sys
import tarfile
import tempfile
import traceback
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

ROOT = Path(__file__).resolve().parent.parent
CANARY = "EXECUTED"
# Unpickling this runs a shell command; the file it makes shows that somebody did.
PICKLE = b"cos\nsystem\n(S'touch " + CANARY.encode() + b"'\ntR."

# --- the audit ----------------------------------------------------------------------------------------

NEVER = {
    *("pickle.find_class", "os.system", "os.exec", "os.fork", "os.forkpty", "os.posix_spawn", "os.spawn"),
    *("socket.connect", "socket.bind", "socket.getaddrinfo", "urllib.Request", "ctypes.dlopen", "code.__new__"),
}


@dataclass(frozen=True)
class Audited:
    """What came of each file ('' where it was accepted), what must not happen, and what was left behind."""

    messages: list[str]
    tracebacks: list[str]
    forbidden: list[str]
    left: list[str]
    stderr: str


def audited(
    setup: str, paths: Sequence[Path], *, warm_up: Sequence[Path] = (), programs: Sequence[str] = ()
) -> Audited:
    """Run `act(path)`, which the source `setup` defines, on each path in a process of its own.

    After `warm_up` (good files, so that lazy imports are over) a hook notes every execution: unpickled names,
    compiled or executed code that comes from no installed file, connections, and programs other than the audio
    decoder and those in `programs`. An AsrError gives a message, any other exception a traceback. The process
    runs in an empty folder; what lies there afterwards is in `left`.
    """
    plan = {
        "setup": setup,
        "paths": [str(p) for p in paths],
        "warm_up": [str(p) for p in warm_up],
        "programs": list(programs),
    }
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run(
            [sys.executable, "-B", str(Path(__file__).resolve())],
            input=json.dumps(plan),
            capture_output=True,
            text=True,
            cwd=folder,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            timeout=300,
            check=False,
        )
        left = sorted(os.listdir(folder))
    assert done.returncode == 0, done.stderr
    return Audited(**json.loads(done.stdout.splitlines()[-1]), left=left, stderr=done.stderr)


def _is_installed(filename: object) -> bool:
    name = os.fsdecode(filename) if isinstance(filename, (str, bytes)) else ""
    homes = (sys.prefix, sys.base_prefix, os.path.dirname(os.__file__), str(ROOT / "asr"))
    return name.startswith("<frozen ") or any(name.startswith(home + os.sep) for home in homes)


def _offence(event: str, args: tuple[Any, ...], programs: Sequence[str]) -> str | None:
    if event == "subprocess.Popen":
        words = [os.fsdecode(word) for word in args[1]]
        decoder = words[0] == sys.executable and str(ROOT / "asr" / "_decoder.py") in words
        return None if decoder or os.path.basename(words[0]) in programs else f"{event} {words}"
    if event == "exec" and not _is_installed(getattr(args[0], "co_filename", None)):
        return f"exec {args[0]!r}"[:200]
    if event == "compile" and not _is_installed(args[1]):
        return f"compile {args[1]!r}"
    return f"{event} {args!r}"[:200] if event in NEVER else None


def _audit() -> None:
    plan = json.load(sys.stdin)
    from asr.errors import AsrError

    scope: dict[str, Any] = {}
    exec(compile(plan["setup"], "<setup>", "exec"), scope)
    act: Callable[[Path], object] = scope["act"]
    for path in plan["warm_up"]:
        act(Path(path))
    messages, tracebacks, forbidden = [], [], []
    watching = True

    def hook(event: str, args: tuple[Any, ...]) -> None:
        if watching and (offence := _offence(event, args, plan["programs"])):
            forbidden.append(offence)

    sys.addaudithook(hook)
    for path in plan["paths"]:
        messages.append("")
        try:
            act(Path(path))
        except AsrError as error:
            messages[-1] = str(error)
        except BaseException:
            tracebacks.append(traceback.format_exc())
    watching = False
    print(json.dumps({"messages": messages, "tracebacks": tracebacks, "forbidden": forbidden}))


# --- audio --------------------------------------------------------------------------------------------


def noise(seconds: float, rate: int = 16000, channels: int = 1) -> np.ndarray:
    """Seeded noise within -1 and 1 as float32, (frames,) or (frames, channels)."""
    generator = np.random.default_rng(0)
    samples = generator.uniform(-0.5, 0.5, (round(seconds * rate), channels)).astype(np.float32)
    return samples[:, 0] if channels == 1 else samples


def encoded(samples: np.ndarray, rate: int = 16000, **options: Any) -> bytes:
    """Samples as the bytes of an audio file; options of soundfile.write, `format` at least."""
    file = io.BytesIO()
    soundfile.write(file, samples, rate, **options)
    return file.getvalue()


def wav(data: bytes, *, tag: int = 1, channels: int = 1, rate: int = 8000, bits: int = 16, size: int = -1) -> bytes:
    """A WAV file field by field, sane or not; `size` is what its header says of the data."""
    frame = max(channels * bits // 8, 1)
    form = struct.pack("<HHIIHH", tag, channels, rate, rate * frame % 2**32, frame % 2**16, bits)
    size = len(data) if size < 0 else size
    head = b"WAVEfmt " + struct.pack("<I", len(form)) + form + b"data" + struct.pack("<I", size)
    return b"RIFF" + struct.pack("<I", min(len(head) + size, 2**32 - 1)) + head + data


def hostile_audio(folder: Path) -> list[tuple[Path, str]]:
    """Write files that are no usable audio; each with a pattern for the line that says so."""
    tone = noise(2)
    pcm = (tone * 30000).astype("<i2").tobytes()
    half: Callable[[bytes], bytes] = lambda data: data[: len(data) // 2]  # noqa: E731
    flac = encoded(tone, format="FLAC")
    endless = bytearray(flac)
    endless[21] |= 0x0F  # the count of samples: 36 bits that end here and in the next four bytes
    endless[22:26] = b"\xff\xff\xff\xfe"
    scrambled = bytearray(flac)
    scrambled[5000:20000] = np.random.default_rng(1).bytes(15000)
    floats: Callable[[float], bytes] = lambda x: np.where(np.arange(9000) == 7000, x, tone[:9000]).astype("<f4").tobytes()  # noqa: E731
    playlist = b"#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\ngood.wav\n#EXT-X-ENDLIST\n"
    bare = "not audio that can be decoded|libsndfile cannot read it"
    files = {
        "empty.wav": (b"", "is empty"),
        "text.wav": (b"This is no audio at all.\n" * 100, bare),
        "random.wav": (np.random.default_rng(2).bytes(20000), bare),
        "random.mp3": (np.random.default_rng(3).bytes(20000), bare),
        "random.raw": (np.random.default_rng(4).bytes(20000), bare),
        "pickle.wav": (PICKLE, bare),
        "python.wav": (b"import os\nos.system('touch EXECUTED')\n", bare),
        "shell;touch EXECUTED.wav": (b"#!/bin/sh\ntouch EXECUTED\n", bare),
        "-i.wav": (b"touch", bare),
        "new\nline\x1b[31m.wav": (b"touch", bare),
        "http:x.wav": (b"touch", bare),
        "zip.wav": (b"PK\x03\x04" + bytes(2000), bare),
        "zeros.bin": (bytes(100_000), bare),
        "header-cut.wav": (wav(pcm)[:20], bare),
        "header-only.wav": (wav(b""), "no samples"),
        "data-cut.wav": (half(wav(pcm)), "truncated"),
        "data-cut.aiff": (half(encoded(tone, format="AIFF")), "truncated"),
        "data-cut.au": (half(encoded(tone, format="AU")), "truncated"),
        "data-cut.w64": (half(encoded(tone, format="W64")), "truncated"),
        "data-cut.rf64": (half(encoded(tone, format="RF64")), "truncated"),
        "data-cut.sph": (half(encoded(tone, format="NIST")), "truncated"),
        "data-cut.voc": (half(encoded(tone, format="VOC")), "truncated"),
        "data-cut.flac": (half(flac), "truncated|damaged"),
        "data-cut.ogg": (half(encoded(tone, format="OGG")), "truncated"),
        "data-cut.opus": (half(encoded(tone, format="OGG", subtype="OPUS")), "truncated"),
        "data-cut.mp3": (half(encoded(tone, format="MP3")), "truncated"),
        "scrambled.flac": (bytes(scrambled), "damaged|truncated"),
        "endless.flac": (bytes(endless), "too long to read at once"),
        "zero.wav": (wav(bytes(8000)), "silent: every sample is zero"),
        "cancelled.wav": (wav(np.stack([np.arange(999), -np.arange(999)], 1).astype("<i2").tobytes(), channels=2),
                          "silent: its channels cancel out"),
        "nan.wav": (wav(floats(np.nan), tag=3, bits=32), "not finite"),
        "infinite.wav": (wav(floats(np.inf), tag=3, bits=32), "not finite"),
        "channels-0.wav": (wav(pcm, channels=0), bare),
        "channels-65535.wav": (wav(pcm, channels=65535), bare),
        "rate-0.wav": (wav(pcm, rate=0), bare),
        "bits-0.wav": (wav(pcm, bits=0), bare),
        "codec-unknown.wav": (wav(pcm, tag=0x4242), bare),
        "playlist.m3u8": (playlist, bare),
        "playlist.wav": (playlist, bare),
        "concat.wav": (b"ffconcat version 1.0\nfile good.wav\n", bare),
        "session.sdp": (b"v=0\no=- 0 0 IN IP4 127.0.0.1\nc=IN IP4 127.0.0.1\nm=audio 9 RTP/AVP 0\n", bare),
        "picture.svg": (b"<svg xmlns='http://www.w3.org/2000/svg'><script>1</script></svg>", bare),
    }  # fmt: skip
    (folder / "good.wav").write_bytes(wav(pcm))
    cases = []
    for name, (data, pattern) in files.items():
        (folder / name).write_bytes(data)
        cases.append((folder / name, pattern))
    (folder / "folder.wav").mkdir()
    os.mkfifo(folder / "pipe.wav")
    (folder / "loop.wav").symlink_to("loop.wav")
    with (folder / "huge.wav").open("wb") as file:
        file.write(wav(pcm, size=2**32 - 1000))
        file.truncate(2**32)  # a hole: it takes no room on the disk
    special = {"missing.wav": "no such file", "folder.wav": "directory", "pipe.wav": "not a regular file"}
    special |= {"loop.wav": "symbolic links", "huge.wav": "too long to read at once"}
    return cases + [(folder / name, pattern) for name, pattern in special.items()]


# --- archives -----------------------------------------------------------------------------------------


def tar(*members: tuple[str, Any], **fields: Any) -> bytes:
    """A tar file; each member has a name and its bytes, or the type of a special one."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=tarfile.GNU_FORMAT) as archive:
        for name, data in members:
            info = tarfile.TarInfo(name)
            for field, value in fields.items():
                setattr(info, field, value)
            if isinstance(data, str):
                info.type, data = data.encode(), b""
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return file.getvalue()


def zipped(*members: tuple[str, bytes], mode: int = 0o100644) -> bytes:
    """A zip file whose members claim a Unix mode."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members:
            info = zipfile.ZipInfo(name)
            info.external_attr = mode << 16
            info.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(info, data)
    return file.getvalue()


def deb(data_tar: bytes) -> bytes:
    """A Debian package around a tar file."""
    parts = {"debian-binary": b"2.0\n", "control.tar.gz": gzip.compress(tar(("control", b"Package: x\n")))}
    parts["data.tar.gz"] = gzip.compress(data_tar)
    package = b"!<arch>\n"
    for name, data in parts.items():
        head = f"{name:<16}{0:<12}{0:<6}{0:<6}{'100644':<8}{len(data):<10}`\n".encode()
        package += head + data + b"\n" * (len(data) % 2)
    return package


def _tar_header(size: bytes, kind: bytes) -> bytes:
    head = bytearray(tarfile.TarInfo("x").tobuf())
    head[124:136], head[156:157], head[148:156] = size, kind, b" " * 8
    head[148:156] = b"%06o\0 " % sum(head)
    return bytes(head)


def hostile_archives(folder: Path) -> list[tuple[Path, str]]:
    """Write archives that must be refused; each with a pattern for the line that says so."""
    ok = ("a/good.txt", b"good\n" * 200)
    plain, zip_ok = tar(ok), zipped(ok)
    flip = bytearray(zip_ok)
    flip[45] ^= 0xFF
    directory = zip_ok.index(b"PK\x01\x02")
    locked, liar = bytearray(zip_ok), bytearray(zip_ok)
    locked[directory + 8] |= 1
    for start in (22, directory + 24):
        liar[start : start + 4] = struct.pack("<I", 10)
    bomb = bytes(100 << 20)
    files = {
        "absolute.tar": (tar(ok, ("/tmp/evil", b"x")), "member '/tmp/evil': an absolute name"),
        "dots.tar.gz": (gzip.compress(tar(ok, ("a/../../evil", b"x"))), r"leads out of the folder"),
        "symlink.tar": (tar(ok, ("evil", tarfile.SYMTYPE.decode()), linkname="/etc/passwd"), "a link"),
        "through-link.tar": (tar(("d", tarfile.SYMTYPE.decode()), linkname="/tmp") [:512] + tar(("d/evil", b"x")), "a link"),
        "hardlink.tar": (tar(ok, ("evil", tarfile.LNKTYPE.decode()), linkname="/etc/passwd"), "a link"),
        "device.tar": (tar(ok, ("evil", tarfile.CHRTYPE.decode())), "a device"),
        "fifo.tar": (tar(ok, ("evil", tarfile.FIFOTYPE.decode())), "a device"),
        "twice.tar": (tar(ok, ok), "write over another"),
        "file-and-folder.tar": (tar(("a", b"x"), ok), "exists|[Nn]ot a directory"),
        "backslash.tar": (tar(ok, ("..\\evil", b"x")), "backslash"),
        "newline.tar": (tar(ok, ("e\nvil", b"x")), r"member 'e\\nvil': a backslash or control"),
        "cut.tar": (plain[:700], "broken"),
        "cut-header.tar": (tar(("b.txt", b"b")) [:1024] + plain[:200], "broken: it ends without its end mark"),
        "cut.tar.gz": (gzip.compress(plain)[:-30], "broken"),
        "checksum.tar.gz": (gzip.compress(plain)[:-8] + bytes(8), "CRC"),
        "text.tar.gz": (b"not an archive\n", "[Nn]ot a gzipped file"),
        "text.tar.xz": (b"not an archive\n", "broken"),
        "text.tar.bz2": (b"not an archive\n", "[Ii]nvalid data stream"),
        "empty.tar": (b"", "broken"),
        "bomb.tar.gz": (gzip.compress(tar(("zeros", bomb)), 9), "unpacks to more than"),
        "long-name.tar": (_tar_header(b"77777777777\0", b"L") + bytes(4096), "a header of"),
        "negative.tar": (_tar_header(b"\xff" * 12, b"0") + bytes(4096), "broken"),
        "absolute.zip": (zipped(ok, ("/tmp/evil", b"x")), "an absolute name"),
        "dots.zip": (zipped(ok, ("../evil", b"x")), "leads out of the folder"),
        "symlink.zip": (zipped(("evil", b"/etc/passwd"), mode=0o120777), "a link"),
        "backslash.zip": (zipped(ok, ("..\\evil", b"x")), "backslash"),
        "nul.zip": (zip_ok.replace(b"good.txt", b"good\0txt"), "control character"),
        "twice.zip": (zip_ok[:directory] + zip_ok[directory:], "write over another"),
        "encrypted.zip": (bytes(locked), "encrypted"),
        "checksum.zip": (bytes(flip), "broken"),
        "larger-than-declared.zip": (bytes(liar), "broken"),
        "bomb.zip": (zipped(("zeros", bomb)), "unpacks to more than"),
        "text.zip": (b"not an archive\n", "broken"),
        "dots.deb": (deb(tar(ok, ("./../evil", b"x"))), "leads out of the folder"),
        "symlink.deb": (deb(tar(ok, ("evil", tarfile.SYMTYPE.decode()), linkname="/etc")), "a link"),
        "cut.deb": (deb(plain)[:-40], "broken"),
        "text.deb": (b"not an archive\n", "broken"),
        "bomb.deb": (deb(tar(("zeros", bomb))), "unpacks to more than"),
        "kind.rar": (b"Rar!", "not a kind of archive"),
    }  # fmt: skip
    files["twice.zip"] = (_zip_twice(ok), files["twice.zip"][1])
    for name, (data, _) in files.items():
        (folder / name).write_bytes(data)
    (folder / "folder.tar").mkdir()
    special = {"folder.tar": "[Ii]s a directory", "missing.tar": "No such file"}
    return [(folder / n, pattern) for n, (_, pattern) in files.items()] + [(folder / n, p) for n, p in special.items()]


def _zip_twice(member: tuple[str, bytes]) -> bytes:
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return zipped(member, member)


if __name__ == "__main__":
    _audit()
