"""Files that mean harm or are merely broken, made by code.

`hostile_audio` and `hostile_archives` write into a folder and give each file with a pattern that the one line
about it must match.
"""

from __future__ import annotations

import gzip
import io
import os
import struct
import tarfile
import warnings
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

CANARY = "EXECUTED"
# Unpickling this runs a shell command; the file it makes shows that somebody did.
PICKLE = b"cos\nsystem\n(S'touch " + CANARY.encode() + b"'\ntR."

# --- audio --------------------------------------------------------------------------------------------


def noise(seconds: float, rate: int = 16000, channels: int = 1) -> np.ndarray[Any, Any]:
    """Seeded noise within -1 and 1 as float32, (frames,) or (frames, channels)."""
    generator = np.random.default_rng(0)
    samples = generator.uniform(-0.5, 0.5, (round(seconds * rate), channels)).astype(np.float32)
    return samples[:, 0] if channels == 1 else samples


def encoded(samples: np.ndarray[Any, Any], rate: int = 16000, **options: Any) -> bytes:
    """Samples as the bytes of an audio file; options of soundfile.write, `format` at least."""
    file = io.BytesIO()
    soundfile.write(file, samples, rate, **options)
    return file.getvalue()


def wav(data: bytes, *, tag: int = 1, channels: int = 1, rate: int = 8000, bits: int = 16, size: int = -1) -> bytes:
    """The bytes of a WAV file field by field, sane or not; `size` is what its header says of the data."""
    frame = max(channels * bits // 8, 1)
    form = struct.pack("<HHIIHH", tag, channels, rate, rate * frame % 2**32, frame % 2**16, bits)
    size = len(data) if size < 0 else size
    head = b"WAVEfmt " + struct.pack("<I", len(form)) + form + b"data" + struct.pack("<I", size)
    return b"RIFF" + struct.pack("<I", min(len(head) + size, 2**32 - 1)) + head + data


def half(data: bytes) -> bytes:
    """What is left of a copy that stopped half-way."""
    return data[: len(data) // 2]


def hostile_audio(folder: Path) -> list[tuple[Path, str]]:
    """Write files that are no usable audio; each with a pattern for the line that says so."""
    tone = noise(2)
    pcm, floats = (tone * 30000).astype("<i2").tobytes(), tone.astype("<f4").tobytes()
    flac = encoded(tone, format="FLAC")
    endless = bytearray(flac)
    endless[21] |= 0x0F  # the count of samples: 36 bits that end here and in the next four bytes
    endless[22:26] = b"\xff\xff\xff\xfe"
    scrambled = bytearray(flac)
    scrambled[5000:20000] = np.random.default_rng(1).bytes(15000)
    opposite = np.stack([np.arange(999), -np.arange(999)], axis=1).astype("<i2").tobytes()
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
        "cancelled.wav": (wav(opposite, channels=2), "silent: its channels cancel out"),
        "nan.wav": (wav(floats + struct.pack("<f", np.nan) + floats, tag=3, bits=32), "not finite"),
        "infinite.wav": (wav(floats + struct.pack("<f", np.inf) + floats, tag=3, bits=32), "not finite"),
        "double.wav": (wav(struct.pack("<d", 1e300) * 99, tag=3, bits=64), "not finite"),
        "channels-0.wav": (wav(pcm, channels=0), bare),
        "channels-65535.wav": (wav(pcm, channels=65535), bare),
        "rate-0.wav": (wav(pcm, rate=0), bare),
        "rate-1.wav": (wav(pcm, rate=1), "sample rate of 1 Hz"),
        "rate-huge.wav": (wav(pcm, rate=2**31 - 1), f"sample rate of 2147483647 Hz|{bare}"),
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
    with zipfile.ZipFile(file, "w") as archive, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # zipfile warns of names that come twice
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
    hardlink, symlink, device, fifo = "1", "2", "3", "6"
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
        "symlink.tar": (tar(ok, ("evil", symlink), linkname="/etc/passwd"), "a link"),
        "through-link.tar": (tar(("d", symlink), linkname="/tmp")[:512] + tar(("d/evil", b"x")), "a link"),
        "hardlink.tar": (tar(ok, ("evil", hardlink), linkname="/etc/passwd"), "a link"),
        "device.tar": (tar(ok, ("evil", device)), "a device"),
        "fifo.tar": (tar(ok, ("evil", fifo)), "a device"),
        "twice.tar": (tar(ok, ok), "write over another"),
        "file-and-folder.tar": (tar(("a", b"x"), ok), "write over another"),
        "backslash.tar": (tar(ok, ("..\\evil", b"x")), "backslash"),
        "newline.tar": (tar(ok, ("e\nvil", b"x")), r"member 'e\\nvil': a backslash or control"),
        "cut.tar": (plain[:700], "broken"),
        "cut-header.tar": (plain[:1536] + plain[:200], "broken: it ends without its end mark"),
        "cut.tar.gz": (gzip.compress(plain)[:-30], "broken"),
        "checksum.tar.gz": (gzip.compress(plain)[:-8] + bytes(8), "CRC"),
        "text.tar.gz": (b"not an archive\n", "[Nn]ot a gzipped file"),
        "text.tar.xz": (b"not an archive\n", "broken"),
        "text.tar.bz2": (b"not an archive\n", "[Ii]nvalid data stream"),
        "empty.tar": (b"", "broken"),
        "bomb.tar.gz": (gzip.compress(tar(("zeros", bomb)), 9), "unpacks to more than"),
        "long-name.tar": (_tar_header(b"77777777777\0", b"L") + bytes(4096), "a header of"),
        "negative.tar": (_tar_header(b"\xff" * 12, b"0") + bytes(4096), "a negative size"),
        "absolute.zip": (zipped(ok, ("/tmp/evil", b"x")), "an absolute name"),
        "dots.zip": (zipped(ok, ("../evil", b"x")), "leads out of the folder"),
        "symlink.zip": (zipped(("evil", b"/etc/passwd"), mode=0o120777), "a link"),
        "backslash.zip": (zipped(ok, ("..\\evil", b"x")), "backslash"),
        "nul.zip": (zip_ok.replace(b"good.txt", b"good\0txt"), "control character"),
        "twice.zip": (zipped(ok, ok), "write over another"),
        "encrypted.zip": (bytes(locked), "encrypted"),
        "checksum.zip": (bytes(flip), "broken"),
        "larger-than-declared.zip": (bytes(liar), "broken"),
        "bomb.zip": (zipped(("zeros", bomb)), "unpacks to more than"),
        "text.zip": (b"not an archive\n", "broken"),
        "dots.deb": (deb(tar(ok, ("./../evil", b"x"))), "leads out of the folder"),
        "symlink.deb": (deb(tar(ok, ("evil", symlink), linkname="/etc")), "a link"),
        "cut.deb": (deb(plain)[:-40], "broken"),
        "text.deb": (b"not an archive\n", "broken"),
        "bomb.deb": (deb(tar(("zeros", bomb))), "unpacks to more than"),
        "kind.rar": (b"Rar!", "not a kind of archive"),
    }  # fmt: skip
    for name, (data, _) in files.items():
        (folder / name).write_bytes(data)
    (folder / "folder.tar").mkdir()
    os.mkfifo(folder / "pipe.zip")
    patterns = {name: pattern for name, (_, pattern) in files.items()}
    patterns |= {"folder.tar": "not a regular file", "pipe.zip": "not a regular file", "missing.tar": "No such file"}
    return [(folder / name, pattern) for name, pattern in patterns.items()]
