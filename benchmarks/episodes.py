"""Build episodes with deliberately wrong subtitles from the clips of a corpus with English translations.

An episode is a 16 kHz FLAC file of concatenated clips, with or without music, and an English SRT file.  The times of
the SRT file are wrong by an offset of up to 30 s, a drift of 0.1 % in either direction, and a random error at each edge
of each cue (normal, standard deviation 0.3 s).  Apart from that, cues begin and end with the voice, not with the clip,
which has silence at its ends.  5 % of the cues are missing, and as many are alien: texts of other episodes at times
when nobody speaks.  With a linger, cues stay on screen for up to that many seconds longer, if there is room, as
human-made ones do.  All random draws depend only on the seed and the episode's name.

    OUT/cs/train/media/cs-airplane.flac
    OUT/cs/train/subtitles/cs-airplane.en.srt
    OUT/cs/train/cuts_true.jsonl.gz     the same lines at their true times, with all fields of the corpus's cuts
    OUT/cs/train/episodes.json          the true offset, drift, signal-to-noise ratio, ...

Splits are those of the corpus.  Lines whose ids share a folder, such as a level of fillets, form an episode; lines
without a folder are grouped by 20.  Shapes: N samples.
"""

from __future__ import annotations

import json
import random
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NamedTuple

import pysubs2
import soundfile
import torch
from lhotse import MonoCut, Recording, SupervisionSegment
from lhotse.audio import AudioSource
from torch import Tensor

from asr.audio import open_audio
from asr.data.cuts import load_audio, read_split
from asr.errors import DataError
from asr.files import make_folder, write_atomically, write_whole
from asr.progress import OnDone
from asr.resampling import resample
from benchmarks.speech import Stretch, sound
from recipes.preparing import manifest_path, write_cuts

EPISODES = "episodes.json"
RATE = 16000
LINES = 20  # per episode of a corpus without scenes; the median of fillets
LEAD_S = 35.0  # silence before the first line: longer than the largest offset, so that no cue begins before 0
PAUSES_S = (0.5, 6.0)
OFFSET_S, DRIFT, JITTER_S, MISSING, ALIEN = 30.0, 0.001, 0.3, 0.05, 0.05
SNRS_DB = (None, 20, 10, 5)  # None: no music
SPEECH_DB = -20.0  # the level of all clips, relative to full scale


@dataclass(frozen=True)
class Episode:
    """Properties of an episode; offset and drift map the times of its subtitles to the true ones.

    said_s: start of the first line and end of the last one.  aliens: texts of the alien cues.
    """

    name: str
    seed: int
    linger_s: float
    offset_s: float
    drift: float
    snr_db: int | None
    duration_s: float
    said_s: tuple[float, float]
    lines: int
    cues: int
    aliens: tuple[str, ...]


class Line(NamedTuple):
    """A clip of the corpus, its start and end in the episode, and those of its sound (said), in seconds."""

    cut: MonoCut
    start_s: float
    end_s: float
    said: Stretch

    @property
    def english(self) -> str:
        return str(self.cut.supervisions[0].custom["translations"]["en"])


def build(
    data: Path,
    split: str,
    language: str,
    music: Sequence[Path],
    folder: Path,
    seed: int,
    linger_s: float,
    on_done: OnDone,
) -> list[Episode]:
    """Build the episodes of one split and language in a folder and return their properties."""
    for name in ("media", "subtitles"):
        make_folder(folder / name)
    cuts = read_split(manifest_path(data, split), [language])
    scenes = by_scene([cut for cut in cuts if _english(cut)])
    episodes: list[Episode] = []
    truth: list[MonoCut] = []
    for done, (name, cuts) in enumerate(sorted(scenes.items())):
        on_done(done, len(scenes))
        draw = random.Random(f"{seed}/{name}")
        others = [_english(cut) for other, rest in sorted(scenes.items()) if other != name for cut in rest]
        audio_N, lines = joined(cuts, draw)
        snr_db = draw.choice(SNRS_DB)
        audio_N = with_music(audio_N, lines, music, snr_db, draw)
        path = folder / "media" / f"{name}.flac"
        with write_atomically(path) as part:
            soundfile.write(part, audio_N.clamp(-1, 1).numpy(), RATE, format="FLAC", subtype="PCM_16")
        offset_s, drift = draw.uniform(-OFFSET_S, OFFSET_S), draw.choice([-DRIFT, DRIFT])
        texts, aliens = cues_of(lines, others, len(audio_N) / RATE, linger_s, draw)
        write_srt(folder / "subtitles" / f"{name}.en.srt", texts, offset_s, drift)
        said_s, duration_s = (lines[0].start_s, lines[-1].end_s), len(audio_N) / RATE
        counts = (len(lines), len(texts))
        episodes.append(
            Episode(name, seed, linger_s, offset_s, drift, snr_db, duration_s, said_s, *counts, tuple(aliens))
        )
        truth += true_cuts(name, path, len(audio_N), lines)
    write_cuts(truth, folder / "cuts_true.jsonl.gz")
    write_whole(folder / EPISODES, json.dumps([asdict(episode) for episode in episodes], indent=1))
    return episodes


def read_episodes(folder: Path, seed: int, linger_s: float) -> list[Episode] | None:
    """Return the episodes that `build` made with that seed and linger, or None."""
    path = folder / EPISODES
    if not path.is_file():
        return None
    rows = json.loads(path.read_text(encoding="utf-8"))
    episodes = [Episode(**{**row, "said_s": tuple(row["said_s"]), "aliens": tuple(row["aliens"])}) for row in rows]
    return episodes if all((one.seed, one.linger_s) == (seed, linger_s) for one in episodes) else None


def by_scene(cuts: Sequence[MonoCut]) -> dict[str, list[MonoCut]]:
    """Group lines into episodes, in the order of their ids: cs/airplane/... into cs-airplane, fr/... into fr-000."""
    scenes: dict[str, list[MonoCut]] = defaultdict(list)
    alone: Counter[str] = Counter()
    for cut in sorted(cuts, key=lambda cut: cut.id):
        language, *folders = cut.id.split("/")[:-1]
        if not folders:
            folders = [f"{alone[language] // LINES:03}"]
            alone[language] += 1
        scenes["-".join([language, *folders])].append(cut)
    return dict(scenes)


def _english(cut: MonoCut) -> str:
    return str(((cut.supervisions[0].custom or {}).get("translations") or {}).get("en", ""))


def music_in(folder: Path) -> list[Path]:
    """Return the Ogg Vorbis files in or below a folder.  Raises DataError if there are none."""
    if found := sorted(folder.rglob("*.ogg")):
        return found
    raise DataError(f"{folder}: no music (.ogg) in it; recipes/fillets/prepare.py unpacks the game's")


def joined(cuts: Sequence[MonoCut], draw: random.Random) -> tuple[Tensor, list[Line]]:
    """Concatenate clips, scaled to the same level, with pauses between them and silence before and after."""
    pieces, lines = [torch.zeros(round(LEAD_S * RATE))], []
    at = len(pieces[0])
    for cut in cuts:
        clip_N = load_audio(cut, RATE)
        level = clip_N.square().mean().sqrt()
        clip_N = clip_N * (10 ** (SPEECH_DB / 20) / level.clamp(min=1e-4))
        gap_N = torch.zeros(round(draw.uniform(*PAUSES_S) * RATE))
        first_s, last_s = sound(clip_N, RATE)
        lines.append(Line(cut, at / RATE, (at + len(clip_N)) / RATE, (at / RATE + first_s, at / RATE + last_s)))
        pieces += [clip_N, gap_N]
        at += len(clip_N) + len(gap_N)
    return torch.cat([*pieces, torch.zeros(round(10 * RATE))]), lines


def with_music(
    audio_N: Tensor, lines: Sequence[Line], music: Sequence[Path], snr_db: int | None, draw: random.Random
) -> Tensor:
    """Add a random piece of music, repeated as needed, `snr_db` dB below the speech; None adds nothing."""
    if snr_db is None:
        return audio_N
    audio = open_audio(draw.choice(music))
    music_N = resample(torch.from_numpy(audio.samples_N), audio.sample_rate_hz, RATE)
    music_N = music_N.repeat(-(-len(audio_N) // len(music_N)))[: len(audio_N)]
    speech_N = torch.cat([audio_N[round(line.start_s * RATE) : round(line.end_s * RATE)] for line in lines])
    ratio = (speech_N.square().mean() / music_N.square().mean()).sqrt() / 10 ** (snr_db / 20)
    return audio_N + ratio * music_N


def cues_of(
    lines: Sequence[Line], others: Sequence[str], duration_s: float, linger_s: float, draw: random.Random
) -> tuple[list[tuple[float, float, str]], list[str]]:
    """Return the sorted cues, at the times of the sound with random errors at the edges, and the alien texts."""
    cues = []
    for line in lines:
        start_s, end_s = (edge_s + draw.gauss(0, JITTER_S) for edge_s in line.said)
        if draw.random() >= MISSING:
            cues.append((start_s, max(end_s, start_s + 0.3) + draw.uniform(0, linger_s), line.english))
    edges = [LEAD_S / 2, *(edge for line in lines for edge in (line.start_s, line.end_s)), duration_s]
    pauses = [(a, b) for a, b in zip(edges[::2], edges[1::2], strict=True) if b - a > 1.5]
    aliens = []
    for start_s, end_s in pauses:
        if draw.random() < ALIEN * len(lines) / len(pauses):
            text = draw.choice(others)
            aliens.append(text)
            cues.append((start_s + 0.2, min(end_s - 0.2, start_s + 0.2 + max(1.0, len(text) / 15)), text))
    cues.sort()
    starts_after = [*(start_s for start_s, _, _ in cues[1:]), duration_s]
    ends = [min(end_s, after_s) for (_, end_s, _), after_s in zip(cues, starts_after, strict=True)]
    return [
        (start_s, max(end_s, start_s + 0.2), text) for (start_s, _, text), end_s in zip(cues, ends, strict=True)
    ], aliens


def write_srt(path: Path, cues: Sequence[tuple[float, float, str]], offset_s: float, drift: float) -> None:
    """Write cues at times that offset and drift map back to the true ones."""
    file = pysubs2.SSAFile()
    for start_s, end_s, text in cues:
        start_ms, end_ms = (round(1000 * (edge_s - offset_s) / (1 + drift)) for edge_s in (start_s, end_s))
        file.append(pysubs2.SSAEvent(max(0, start_ms), max(0, end_ms), text))
    write_whole(path, file.to_string("srt"))


def true_cuts(name: str, path: Path, samples: int, lines: Sequence[Line]) -> list[MonoCut]:
    """Return the lines as cuts of the episode; a cut spans the whole clip, its supervision only the sound."""
    recording = Recording(name, [AudioSource("file", [0], str(path.resolve()))], RATE, samples, samples / RATE)
    cuts = []
    for line in lines:
        known, duration_s = line.cut.supervisions[0], line.end_s - line.start_s
        first_s, last_s = line.said
        segment = SupervisionSegment(
            line.cut.id,
            name,
            first_s - line.start_s,
            last_s - first_s,
            0,
            known.text,
            known.language,
            known.speaker,
            custom=known.custom,
        )
        cuts.append(MonoCut(line.cut.id, line.start_s, duration_s, 0, supervisions=[segment], recording=recording))
    return cuts
