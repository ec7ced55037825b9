"""Ogg files with damaged and missing pages, which decoders leave out without a word, and odd ones that lack nothing."""

from __future__ import annotations

import itertools
import random
import struct
import subprocess
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hostile import encoded, noise
from marks import needs_ffmpeg
from numpy.typing import NDArray

from asr.audio import audio_length, open_audio, program, stream_audio
from asr.errors import AudioError

codecs = pytest.mark.parametrize("codec", ["VORBIS", "OPUS"])
HEADERS = 2  # pages of headers, as libsndfile writes them


def made(codec: str, seconds: float = 5.0) -> list[bytes]:
    """Encode noise, and return the pages."""
    return pages_of(encoded(noise(seconds), format="OGG", subtype=codec))


def pages_of(data: bytes) -> list[bytes]:
    pages = []
    while data:
        end = 27 + data[26] + sum(data[27 : 27 + data[26]])
        pages.append(data[:end])
        data = data[end:]
    return pages


def checksum(page: bytes) -> int:
    """Compute it bit by bit, as RFC 3533 has it."""
    crc = 0
    for byte in page[:22] + bytes(4) + page[26:]:
        crc ^= byte << 24
        for _ in range(8):
            crc = (crc << 1 ^ (0x04C11DB7 if crc >> 31 else 0)) & 0xFFFFFFFF
    return crc


def changed(
    page: bytes, *, flags: int | None = None, stream: int | None = None, number: int | None = None, earlier: int = 0
) -> bytes:
    """Change fields of a page, its granule position by `earlier`, and its checksum with them."""
    new = bytearray(page)
    new[5] = page[5] if flags is None else flags
    struct.pack_into("<q", new, 6, struct.unpack_from("<q", page, 6)[0] - earlier)
    for at, value in ((14, stream), (18, number)):
        new[at : at + 4] = page[at : at + 4] if value is None else struct.pack("<I", value)
    new[22:26] = struct.pack("<I", checksum(new))
    return bytes(new)


def flipped(page: bytes) -> bytes:
    """Flip a bit in the middle of the page's body."""
    at = (27 + page[26] + len(page)) // 2
    return page[:at] + bytes([page[at] ^ 4]) + page[at + 1 :]


def write(path: Path, pages: Sequence[bytes]) -> Path:
    path.write_bytes(b"".join(pages))
    return path


def refused(path: Path) -> str:
    """Return what is said of a file, the same at once and, after its samples, by a stream."""
    with pytest.raises(AudioError) as at_once:
        open_audio(path)
    stream = stream_audio(path, block_s=0.5)
    assert len(next(stream)) > 0
    with pytest.raises(AudioError) as at_end:
        list(stream)
    assert str(at_once.value) == str(at_end.value)
    return str(at_end.value).removeprefix(f"{path}: ")


@codecs
def test_checksums_are_those_computed_bit_by_bit(codec: str) -> None:
    draw = random.Random(1)
    for page in [*made(codec), changed(bytes(26) + b"\2\1\2" + draw.randbytes(3))]:
        assert struct.unpack_from("<I", page, 22)[0] == checksum(page)
        assert program._is_intact(page)
        for _ in range(50):
            bit = draw.randrange(8 * len(page))
            turned = bytearray(page)
            turned[bit // 8] ^= 1 << bit % 8
            assert not program._is_intact(turned)


@codecs
@pytest.mark.parametrize("which", [HEADERS, 4, -1], ids=["first", "middle", "last"])
def test_a_flipped_bit_is_refused_with_the_position_of_its_page(tmp_path: Path, codec: str, which: int) -> None:
    pages = made(codec)
    at = len(b"".join(pages[:which]))
    pages[which] = flipped(pages[which])
    path = write(tmp_path / "x.ogg", pages)
    assert refused(path) == f"damaged: the checksum of its Ogg page at byte {at} is wrong"


@codecs
@pytest.mark.parametrize("how", ["lost", "swapped", "first zeroed", "last zeroed", "mark lost", "later mark lost"])
def test_missing_pages_are_refused_with_their_position(tmp_path: Path, codec: str, how: str) -> None:
    pages = made(codec)
    starts = [0, *itertools.accumulate(map(len, pages))]
    changes, at = {
        "lost": ({4: b""}, starts[4]),
        "swapped": ({4: pages[5], 5: pages[4]}, starts[4]),
        "first zeroed": ({HEADERS: bytes(len(pages[HEADERS]))}, starts[HEADERS + 1]),
        "last zeroed": ({len(pages) - 1: bytes(len(pages[-1]))}, starts[-1]),
        "mark lost": ({4: b"0ggS" + pages[4][4:]}, starts[5]),
        # The first bytes of a page are looked for in parts of a file that meet at any byte.
        "later mark lost": ({4: bytes(65_561)}, starts[4] + 65_561),
    }[how]
    path = write(tmp_path / "x.ogg", [changes.get(number, page) for number, page in enumerate(pages)])
    assert refused(path) == f"damaged: Ogg pages are missing before byte {at}"


@codecs
@pytest.mark.parametrize("how", ["untouched", "padding", "tag", "numbers from 7"])
def test_odd_files_without_damage_are_read_as_the_plain_one(tmp_path: Path, codec: str, how: str) -> None:
    pages = made(codec)
    plain_N = open_audio(write(tmp_path / "plain.ogg", pages)).samples_N
    odd = {
        "untouched": pages,
        "padding": [page + b"O" * (65_561 if number == 3 else -len(page) % 1024) for number, page in enumerate(pages)],
        "tag": [*pages, b"TAG" + bytes(125)],
        "numbers from 7": [changed(page, number=7 + number) for number, page in enumerate(pages)],
    }[how]
    path = write(tmp_path / "x.ogg", odd)
    np.testing.assert_array_equal(open_audio(path).samples_N, plain_N)
    np.testing.assert_array_equal(np.concatenate(list(stream_audio(path))), plain_N)


@codecs
def test_pages_that_are_not_counted_are_read(tmp_path: Path, codec: str) -> None:
    path = write(tmp_path / "x.ogg", [changed(page, number=0) for page in made(codec)])
    assert open_audio(path).duration_s == 5


@codecs
def test_recordings_of_radio_stations_and_stopped_ones_are_read(tmp_path: Path, codec: str) -> None:
    """After its headers a radio station sends what is on air; who stops a recording leaves no end mark."""
    pages = made(codec)
    path = write(tmp_path / "x.ogg", [*pages[:HEADERS], *pages[HEADERS + 2 : -1]])
    assert 1 < open_audio(path).duration_s < 4
    path = write(tmp_path / "y.ogg", [*pages[:HEADERS], *pages[HEADERS + 2 : -1], b"\0"])
    assert refused(path).startswith("damaged: Ogg pages are missing")


@needs_ffmpeg
@codecs
def test_every_stream_of_a_chain_is_checked(tmp_path: Path, codec: str) -> None:
    one = made(codec, 4.0)
    other = [changed(page, stream=77) for page in one]
    assert open_audio(write(tmp_path / "x.ogg", [*one, *other])).duration_s == pytest.approx(8, abs=0.05)
    stopped = [*one[:-1], *other]
    assert 4 < open_audio(write(tmp_path / "x.ogg", stopped)).duration_s < 8
    for bad in ([*one[:2], flipped(one[2]), *one[3:], *other], [*one, *other[:-1], flipped(other[-1])]):
        assert refused(write(tmp_path / "x.ogg", bad)).startswith("damaged: the checksum")
    for bad in ([*one, *other[:3], *other[4:]], [*one[:-1], bytes(len(one[-1])), *other]):
        assert refused(write(tmp_path / "x.ogg", bad)).startswith("damaged: Ogg pages are missing")
    assert 4 < audio_length(tmp_path / "x.ogg").duration_s < 8


@needs_ffmpeg
@codecs
def test_stream_that_begins_again_is_read_to_its_end(tmp_path: Path, codec: str) -> None:
    """As in `cat a.ogg b.ogg` of a program that gives every stream the same number."""
    one = made(codec, 3.0)
    plain_N = open_audio(write(tmp_path / "x.ogg", one)).samples_N
    path = write(tmp_path / "x.ogg", [*one, *one])
    twice_N = open_audio(path).samples_N
    assert len(twice_N) / len(plain_N) == pytest.approx(2, abs=0.02)
    np.testing.assert_array_equal(twice_N[: len(plain_N)], plain_N)
    np.testing.assert_array_equal(np.concatenate(list(stream_audio(path))), twice_N)
    assert refused(write(path, [*one, *one[:-1], flipped(one[-1])])).startswith("damaged: the checksum")


@needs_ffmpeg
@codecs
def test_each_of_parallel_streams_is_checked(tmp_path: Path, codec: str) -> None:
    """As in films, here with padding after the first page of the first stream."""
    one = made(codec, 2.0)
    pages = [page for pair in zip(one, (changed(page, stream=77) for page in one), strict=True) for page in pair]
    pages.insert(1, b"O" * 900)
    assert open_audio(write(tmp_path / "x.ogg", pages)).duration_s == pytest.approx(2, abs=0.05)
    pages[-2:] = flipped(pages[-2]), pages[-1]
    assert refused(write(tmp_path / "x.ogg", pages)).startswith("damaged: the checksum")


@needs_ffmpeg
@pytest.mark.parametrize(("name", "codec"), [("x.spx", "libspeex"), ("x.oga", "flac"), ("x.opus", "libopus")])
def test_files_of_ffmpeg_are_read_unless_they_are_damaged(tmp_path: Path, name: str, codec: str) -> None:
    source, path = tmp_path / "x.wav", tmp_path / name
    source.write_bytes(encoded(noise(3), format="WAV"))
    subprocess.run(["ffmpeg", "-v", "error", "-i", source, "-c:a", codec, path], check=True)
    assert open_audio(path).duration_s == pytest.approx(3, abs=0.05)
    *pages, last = pages_of(path.read_bytes())
    assert refused(write(path, [*pages, flipped(last)])).startswith("damaged: the checksum")


def with_early_page(path: Path, which: int = 4) -> tuple[Path, NDArray[np.float32]]:
    """Encode three tones as Opus, and give a page a position before the end of its samples, as ffmpeg does at times.

    Returns the file, and the samples that libsndfile reads without the change.
    """
    time_N = np.arange(6 * 16_000) / 16_000
    tones_N = sum(0.2 * np.sin(2 * np.pi * hertz * time_N) for hertz in (220, 330, 440))
    pages = pages_of(encoded(np.asarray(tones_N, dtype=np.float32), format="OGG", subtype="OPUS"))
    plain_N = open_audio(write(path, pages)).samples_N
    pages[which] = changed(pages[which], earlier=300)
    return write(path, pages), plain_N


@needs_ffmpeg
@pytest.mark.parametrize("which", [4, 6])
def test_opus_with_an_early_position_is_read_to_its_end(tmp_path: Path, which: int) -> None:
    path, plain_N = with_early_page(tmp_path / "x.opus", which)
    whole = open_audio(path)
    assert whole.sample_rate_hz == 16_000
    assert 0 <= len(whole.samples_N) - len(plain_N) <= 100  # where the last page ends depends on the page before
    np.testing.assert_allclose(whole.samples_N[: len(plain_N)], plain_N, atol=0.1)  # two decoders, one at 48 kHz
    np.testing.assert_array_equal(np.concatenate(list(stream_audio(path, block_s=0.7))), whole.samples_N)
    part_N = open_audio(path, offset_s=1.5, duration_s=4).samples_N
    np.testing.assert_allclose(part_N, plain_N[24_000:88_000], atol=0.1)


def test_opus_with_an_early_position_needs_ffmpeg(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, _ = with_early_page(tmp_path / "x.opus")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(AudioError, match=r"cannot read it \(a granule position that is too early\); install ffmpeg"):
        open_audio(path)


@codecs
def test_parts_and_lengths_do_not_depend_on_other_pages(tmp_path: Path, codec: str) -> None:
    """As those of FLAC: many parts of a long file are read without reading all of it each time."""
    pages = made(codec)
    path = write(tmp_path / "x.ogg", pages)
    part_N = open_audio(path, offset_s=0.5, duration_s=0.5).samples_N
    write(path, [*pages[:4], flipped(pages[4]), *pages[5:]])
    assert audio_length(path).duration_s == 5
    np.testing.assert_array_equal(open_audio(path, offset_s=0.5, duration_s=0.5).samples_N, part_N)


def test_pages_are_found_in_any_bytes(tmp_path: Path) -> None:
    """Against a search that holds all of the file."""
    draw = random.Random(0)
    for _ in range(300):
        pieces = [b"OggS", b"O", b"Ogg", bytes(22), b"\1\1", b"\3", b"\xff" * 300, b"z" * 65_536]
        data = b"".join(draw.choices(pieces, k=draw.randrange(12)))
        found, at = [], 0
        while (start := data.find(b"OggS", at)) >= 0:
            sizes = data[start + 27 : start + 27 + sum(data[start + 26 : start + 27])]
            end = min(start + 27 + len(sizes) + sum(sizes), len(data))
            found.append((start, start > at, data[start:end]))
            at = end
        path = write(tmp_path / "x.ogg", [data])
        with path.open("rb") as file:
            assert list(program._ogg_pages(file.fileno())) == [*found, (len(data), at < len(data), b"")]
