"""`asr subtitles` from end to end: from folders to cuts, report and pictures."""

from __future__ import annotations

import json
import math
import os
import subprocess
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from command import Outcome, asr
from hostile import PICKLE, half
from lhotse.cut import Cut
from marks import needs_ffmpeg
from subtitled import LENGTH_S, RATE, SPEECH, LoudIsSpeech, activity_of, conversation, cue, srt, stamp, talk, words
from torch import Tensor

from asr import vad
from asr.audio import audio_tracks
from asr.data.cuts import load_audio, read_cuts
from asr.errors import AudioError, ConfigError
from asr.subtitling import making
from asr.subtitling.activity import listen_once
from asr.subtitling.cutting import Rules, cut
from asr.subtitling.translations import text_within


@pytest.fixture(autouse=True)
def _loud_is_speech(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vad, "load_detector", LoudIsSpeech)


def run(folder: Path, *words: object, status: int = 0) -> Outcome:
    out = asr("subtitles", folder, "--out", folder / "out", "--jobs", 1, *(words or ("--spoken", "cs")))
    assert out.status == status, out
    return out


def cuts_of(folder: Path) -> list[Cut]:
    return list(read_cuts(folder / "out" / "cuts.jsonl.gz"))


def report_of(folder: Path) -> dict[str, Any]:
    return dict(json.loads((folder / "out" / "report.json").read_text(encoding="utf-8")))


def dropped_of(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "out" / "dropped.jsonl").read_text(encoding="utf-8").splitlines()]


# --- end to end ---------------------------------------------------------------------------------------


def test_cuts_carry_the_translation_at_the_corrected_times(tmp_path: Path) -> None:
    talk(tmp_path)
    (tmp_path / "talk.en.srt").write_text(srt(SPEECH, offset_s=6.5))
    shown = run(tmp_path)
    cuts = cuts_of(tmp_path)
    assert len(cuts) == len(SPEECH)
    for i, (made, (start_s, end_s)) in enumerate(zip(cuts, SPEECH, strict=True), start=1):
        said = made.supervisions[0]
        assert (said.text, said.language, said.custom) == (None, "cs", {"translations": {"en": words(i)}})
        assert made.start + said.start == pytest.approx(start_s, abs=0.05)
        assert made.start + said.end == pytest.approx(end_s, abs=0.05)
        assert made.start < start_s < end_s < made.end
    audio_N = load_audio(cuts[0], RATE)
    assert float(audio_N[: round(0.1 * RATE)].abs().max()) < 0.01 < float(audio_N[RATE // 2 :].abs().mean())
    assert (tmp_path / "out" / "pictures" / "talk.en.png").read_bytes().startswith(b"\x89PNG")
    file = report_of(tmp_path)["titles"][0]["files"][0]
    assert file["alignment"]["offset_s"] == pytest.approx(6.5, abs=0.1)
    assert file["alignment"]["trusted"]
    assert "+6.5" in shown.out
    assert "24 cuts" in shown.out


def test_subtitles_in_the_spoken_language_become_the_transcript(tmp_path: Path) -> None:
    talk(tmp_path)
    (tmp_path / "talk.cs.srt").write_text(srt(SPEECH, text=lambda i: f"Věta {i}."), encoding="cp1250")
    (tmp_path / "talk.en.srt").write_text(srt(SPEECH, offset_s=-3))
    run(tmp_path, "--spoken", "cze")
    said = cuts_of(tmp_path)[4].supervisions[0]
    assert said.text == "Věta 5."
    assert said.custom == {"translations": {"en": words(5)}}
    assert report_of(tmp_path)["titles"][0]["times"] == "cs"


def test_language_whose_times_disagree_is_missing_from_that_cut(tmp_path: Path) -> None:
    talk(tmp_path)
    (tmp_path / "talk.en.srt").write_text(srt(SPEECH))
    others = [(a, b) for i, (a, b) in enumerate(SPEECH) if i != 7]
    others[3] = (SPEECH[3][0] - 1.5, SPEECH[3][0] + (SPEECH[3][1] - SPEECH[3][0]) / 2)
    (tmp_path / "talk.de.srt").write_text(srt(others, text=lambda i: f"Satz {i}."))
    run(tmp_path, "--spoken", "cs", "--times", "en")
    found = [cut.supervisions[0].custom["translations"] for cut in cuts_of(tmp_path)]
    assert [i for i, texts in enumerate(found) if "de" not in texts] == [3, 7]
    assert found[8]["de"] == "Satz 8."
    assert report_of(tmp_path)["titles"][0]["missing"] == {"de": 2}
    ids = [cut.id for cut in cuts_of(tmp_path)]
    assert dropped_of(tmp_path) == [
        {"recording": "talk", "language": "de", "cut": ids[i], "reason": reason}
        for i, reason in ((3, "cues do not match its time"), (7, "no cue at its time"))
    ]
    assert {path.name for path in (tmp_path / "out" / "pictures").iterdir()} == {"talk.en.png", "talk.de.png"}


def test_refused_language_is_drawn_and_named_for_each_cut_that_lacks_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    titles = []
    monkeypatch.setattr(making, "draw_cues", lambda *given: titles.append(given[-1]))
    talk(tmp_path)
    (tmp_path / "talk.en.srt").write_text(srt(SPEECH))
    (tmp_path / "talk.de.srt").write_text(srt(conversation(24, seed=9)))
    told = run(tmp_path, "--spoken", "cs", "--times", "en", status=1).err
    assert len(told) == 1
    assert "talk.de.srt: its times cannot be matched to the speech" in told[0]
    german, english = sorted(titles)
    assert german.startswith("talk, de, refused: offset ")
    assert english.startswith("talk, en: offset ")
    rows = dropped_of(tmp_path)
    assert [row["cut"] for row in rows] == [cut.id for cut in cuts_of(tmp_path)]
    assert {(row["language"], row["reason"]) for row in rows} == {("de", "its file cannot be used")}


@needs_ffmpeg
def test_chosen_audio_track_of_a_film_is_extracted_once(tmp_path: Path) -> None:
    other, wanted = talk(tmp_path, "a.wav", [(1, 2)]), talk(tmp_path, "b.wav")
    film = tmp_path / "film.mkv"
    tags = ("-metadata:s:a:0", "language=eng", "-metadata:s:a:1", "language=cze")
    inputs = ("-i", other, "-i", wanted, "-map", "0", "-map", "1")
    subprocess.run(["ffmpeg", "-nostdin", "-v", "error", *inputs, *tags, "-c:a", "pcm_s16le", film], check=True)
    other.unlink(), wanted.unlink()
    (tmp_path / "film.zh-tw.srt").write_text(srt(SPEECH, offset_s=2, text=lambda i: "你來了"), encoding="big5")
    run(tmp_path, "--spoken", "nan", "--track", "cs", "--rate", "8000")
    audio = tmp_path / "out" / "audio" / "film.track1.8000hz.flac"
    cuts = cuts_of(tmp_path)
    assert cuts[0].recording.sources[0].source == str(audio)
    assert cuts[0].supervisions[0].custom == {"translations": {"zh-TW": "你來了"}}
    assert soundfile.info(audio).samplerate == 8000
    assert soundfile.info(audio).duration == pytest.approx(LENGTH_S, abs=0.01)
    made = audio.stat().st_ino
    run(tmp_path, "--spoken", "nan", "--track", "1", "--rate", "8000")
    assert audio.stat().st_ino == made
    told = run(tmp_path, "--spoken", "nan", "--track", "de", status=1).err
    assert told == [f"asr: {film}: no audio track de; there are: 0 (eng), 1 (cze)"]


def test_speech_detection_runs_once_per_recording_until_it_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    heard: list[int] = []

    class Counting(LoudIsSpeech):
        stop_at = 2

        def __call__(self, blocks: Iterable[Tensor]) -> Iterator[Tensor]:
            heard.append(1)
            if len(heard) == self.stop_at:
                raise KeyboardInterrupt
            return super().__call__(blocks)

    monkeypatch.setattr(vad, "load_detector", Counting)
    for name in ("a", "b", "c"):
        talk(tmp_path, f"{name}.wav")
        (tmp_path / f"{name}.en.srt").write_text(srt(SPEECH))
    stopped = run(tmp_path, status=130)
    assert stopped.err == ["asr: the same command goes on where this one left off", "asr: stopped"]
    run(tmp_path)
    assert len(heard) == 4  # a, b until it was stopped, then b and c
    first = {path.name: path.read_bytes() for path in (tmp_path / "out").glob("*.json*")}
    run(tmp_path)
    assert len(heard) == 4
    assert {path.name: path.read_bytes() for path in (tmp_path / "out").glob("*.json*")} == first
    (tmp_path / "out" / "speech" / "a.npz").write_bytes(half((tmp_path / "out" / "speech" / "a.npz").read_bytes()))
    (tmp_path / "out" / "speech" / "c.npz").write_bytes(PICKLE)
    talk(tmp_path, "b.wav", SPEECH[:-1])
    run(tmp_path)
    assert len(heard) == 7
    assert len(cuts_of(tmp_path)) == 3 * len(SPEECH) - 1


@pytest.mark.parametrize(
    "change",
    [
        {"rate": 0},
        {"samples": math.inf},
        {"samples": -5},
        {"frame_s": math.nan},
        {"prob_T": np.array([[0.5]])},
        {"prob_T": np.array([math.nan])},
        {"prob_T": np.array([7.0])},
        {"prob_T": np.array(["x"])},
        {"rate": None},
        {},
    ],
    ids=str,
)
def test_cached_speech_activity_is_used_only_if_valid(tmp_path: Path, change: dict[str, Any]) -> None:
    path, memory = talk(tmp_path), tmp_path / "talk.npz"
    first = listen_once(path, memory, LoudIsSpeech, lambda seconds: None)
    with np.load(memory) as held:
        kept = {**held, "prob_T": np.zeros_like(held["prob_T"]), **{key: np.array(v) for key, v in change.items()}}
    np.savez(memory, **kept)
    again = listen_once(path, memory, LoudIsSpeech, lambda seconds: None)
    assert again.prob_T.any() == bool(change)  # else the cache, which has no speech
    assert (again.samples, again.rate, again.frame_s) == (first.samples, first.rate, first.frame_s)


# --- errors, and cues that are dropped ----------------------------------------------------------------


def test_bad_files_are_reported_and_good_ones_processed(tmp_path: Path) -> None:
    for name in ("talk", "alone", "broken", "binary", "garbled", "other", "none", "unsaid"):
        talk(tmp_path, f"{name}.wav")
    (tmp_path / "broken.wav").write_bytes(b"RIFF nothing")
    good = srt(SPEECH)
    for name in ("talk.en", "broken.en", "stranger.en", "none", "talk.fr.forced"):
        (tmp_path / f"{name}.srt").write_text(good)
    (tmp_path / "binary.en.srt").write_bytes(b"\x00\x01\x02\xff\xfe" * 40)
    (tmp_path / "garbled.fr.srt").write_bytes(srt(SPEECH, text=lambda i: "déjà vu").encode().decode("cp1252").encode())
    (tmp_path / "other.en.srt").write_text(srt(conversation(24, seed=9)))
    (tmp_path / "unsaid.en.srt").write_text(srt(SPEECH, text=lambda i: "[music]"))
    told = "\n".join(run(tmp_path, status=1).err)
    for line in (
        "alone.wav: no subtitles for it",
        "stranger.en.srt: no recording is named like it",
        "none.srt: its name tells no language",
        "talk.fr.forced.srt: left out, as forced subtitles",
        "binary.en.srt",
        "garbled.fr.srt:3: UTF-8 that was once read as cp1252 and saved again (Ã© for é)",
        "other.en.srt: its times cannot be matched to the speech",
        "unsaid.en.srt: nothing is said in any of its cues",
        "broken.wav: ",
    ):
        assert line in told, line
    assert {cut.recording.id for cut in cuts_of(tmp_path)} == {"talk"}
    assert len(report_of(tmp_path)["problems"]) == len(told.splitlines())


def test_no_align_uses_the_times_as_given(tmp_path: Path) -> None:
    talk(tmp_path)
    (tmp_path / "talk.srt").write_text(srt(SPEECH[:3]))
    assert "confidence 0.00" in run(tmp_path, "--spoken", "cs", "--language", "en", status=1).err[0]
    run(tmp_path, "--spoken", "cs", "--language", "en", "--no-align")
    assert len(cuts_of(tmp_path)) == 3


def test_bad_cues_are_dropped_and_recorded_with_a_reason(tmp_path: Path) -> None:
    talk(tmp_path)
    end_s = SPEECH[-1][1]
    silent = (2.0, 4.0)
    texts = {1: "[door]", 2: "", 3: "x" * 400}
    times = [*SPEECH, silent]
    content = srt(times, text=lambda i: texts.get(i, words(i)))
    content += f"\n99\n{stamp(end_s)} --> {stamp(end_s - 2)}\nBackwards.\n"
    content += "".join(f"\n{n}\n{stamp(SPEECH[9][0])} --> {stamp(SPEECH[9][1])}\n{t}\n" for n, t in ((100, "Both."),))
    content += "\n101\n00:01 --> 00:02\nWhen?\n"
    (tmp_path / "talk.en.srt").write_text(content)
    run(tmp_path)
    assert {(row["reason"], *row["cues"]) for row in dropped_of(tmp_path)} == {
        ("sound description", 1),
        ("empty", 2),
        ("too many characters per second", 3),
        ("no speech", 25),
        ("negative length", 26),
        ("overlapping", 10),
        ("overlapping", 27),
        ("unreadable time",),
    }
    (unread,) = (row for row in dropped_of(tmp_path) if row["reason"] == "unreadable time")
    assert (unread["text"], content.split("\n")[unread["line"] - 1]) == ("00:01 --> 00:02\nWhen?", "00:01 --> 00:02")
    assert report_of(tmp_path)["dropped"]["overlapping"] == 2
    assert len(cuts_of(tmp_path)) == 24 - 4


def test_webvtt_and_ass_content_other_than_cues_is_ignored(tmp_path: Path) -> None:
    talk(tmp_path, "a.wav"), talk(tmp_path, "b.wav")
    head = "WEBVTT\n\nSTYLE\n::cue { color: red }\n\nNOTE Do not\nread this\n"
    body = "\n".join(
        f"\ncue {i}\n{stamp(a, '.')} --> {stamp(b, '.')} align:start\n<v Roger>Word <{stamp(a, '.')}><c>{i}</c>.\n"
        for i, (a, b) in enumerate(SPEECH)
    )
    (tmp_path / "a.en.vtt").write_text(head + body)
    events = "\n".join(
        f"Dialogue: 0,{stamp(a, '.')[1:-1]},{stamp(b, '.')[1:-1]},Default,,0,0,0,,{{\\i1}}Word{{\\i0}}\\N{i}."
        for i, (a, b) in enumerate(SPEECH)
    )
    fields = "Layer, Start, End, Style, Name, MarginL, MarginR, MarginV, Effect, Text"
    drawing = "Dialogue: 0,0:00:11.00,0:00:12.00,Default,,0,0,0,,{\\p1}m 0 0 l 100 0"
    comment = "Comment: 0,0:00:11.00,0:00:12.00,Default,,0,0,0,,Not shown."
    head = "[Script Info]\nScriptType: v4.00+\n\n[V4+ Styles]\n\n[Events]\n"
    ass = f"{head}Format: {fields}\n{drawing}\n{comment}\n{events}\n"
    (tmp_path / "b.en.ass").write_text(ass, encoding="utf-16")
    run(tmp_path)
    for name in "ab":
        texts = [c.supervisions[0].custom["translations"]["en"] for c in cuts_of(tmp_path) if c.recording.id == name]
        assert texts == [f"Word {i}." for i in range(24)]


def test_file_name_that_is_not_utf8_is_processed_like_others(tmp_path: Path) -> None:
    name = os.fsdecode(b"caf\xe9")
    for stem in ("good", name):
        talk(tmp_path, "new.wav").rename(tmp_path / f"{stem}.wav")
        (tmp_path / f"{stem}.en.srt").write_text(srt(SPEECH))
    run(tmp_path)
    assert {cut.recording.id for cut in cuts_of(tmp_path)} == {"good", name}
    assert load_audio(cuts_of(tmp_path)[0], RATE).any()


def test_unusable_folder_or_options_are_refused(tmp_path: Path) -> None:
    assert "there is no audio or video file" in run(tmp_path, status=2).err[0]
    talk(tmp_path)
    assert "is not a language code" in run(tmp_path, "--spoken", "klingonish", status=2).err[0]
    assert (
        "no cue can pass limits of 0.3 (--min-duration) to 0.1 (--max-duration)"
        in run(tmp_path, "--spoken", "cs", "--max-duration", "0.1", status=2).err[0]
    )


def test_silero_hears_no_speech_in_noise_so_alignment_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.undo()
    talk(tmp_path)
    (tmp_path / "talk.en.srt").write_text(srt(SPEECH))
    assert "cannot be matched to the speech" in run(tmp_path, status=1).err[0]


# --- units --------------------------------------------------------------------------------------------


def test_short_cue_within_a_long_one_drops_both_as_overlapping() -> None:
    activity = activity_of([(0.5, 9.3)], 12)
    cues = [cue(1, 0.0, 10.0, "It goes on and on until it has an end."), cue(2, 3.0, 3.4, "Hey!")]
    kept, dropped = cut(cues, activity, Rules())
    assert not kept
    assert [each.reason for each in dropped] == ["overlapping"] * 2


def test_edges_snap_to_nearby_speech_and_padding_does_not_overlap() -> None:
    activity = activity_of([(1.0, 3.0), (3.4, 5.0)], 10)
    cues = [cue(1, 0.7, 3.2, "One and one."), cue(2, 3.2, 5.3, "Two and two.")]
    (one, two), dropped = cut(cues, activity, Rules(pad_s=0.5))
    assert not dropped
    assert np.allclose([one.cue.start_s, one.cue.end_s, two.cue.start_s, two.cue.end_s], [1, 3, 3.4, 5], atol=0.05)
    assert np.allclose([one.start_s, one.end_s, two.start_s, two.end_s], [0.5, 3.2, 3.2, 5.5], atol=0.05)


@pytest.mark.parametrize(
    ("start_s", "end_s", "text", "reason"),
    [
        (1.0, 1.2, "Oh.", "too short"),
        (1.0, 28.0, "Oh.", "too long"),
        (31.0, 33.0, "Oh.", "no speech"),
        (25.0, 45.0, "Oh.", "outside the recording"),
        (2.0, 4.0, "o" * 80, "too many characters per second"),
        (2.0, 4.0, "你" * 40, "too many characters per second"),
        (2.0, 12.0, "Oh.", "too few characters per second"),
        (2.0, 4.0, "Oh, I see.", None),
    ],
)
def test_rules_drop_cues_with_the_right_reason(start_s: float, end_s: float, text: str, reason: str | None) -> None:
    activity = activity_of([(0.0, 30.0)], 40)
    _, dropped = cut([cue(1, start_s, end_s, text)], activity, Rules())
    assert [d.reason for d in dropped] == ([] if reason is None else [reason])


def test_rules_that_no_cue_can_meet_are_refused() -> None:
    with pytest.raises(ConfigError, match="min_speech"):
        Rules(min_speech=2)
    with pytest.raises(ConfigError, match="pad_s"):
        Rules(pad_s=-1)
    with pytest.raises(ConfigError, match=r"2 \(--min-cps\) to 1 \(--max-cps\)"):
        Rules(min_cps=2, max_cps=1)


def test_translation_is_taken_only_if_its_cues_match_the_span() -> None:
    cues = [cue(1, 0, 2, "a"), cue(2, 2.2, 4, "b"), cue(3, 5, 8, "c")]
    assert text_within(cues, 0, 4.1) == "a b"
    assert text_within(cues, 2.1, 4.1) == "b"
    assert text_within(cues, 0, 3) is None
    assert text_within(cues, 4.2, 4.8) is None
    assert text_within(cues, 5, 14) is None


@needs_ffmpeg
def test_film_without_audio_is_reported(tmp_path: Path) -> None:
    film = tmp_path / "film.avi"
    source = ("-f", "lavfi", "-i", "testsrc=s=32x32:d=1:r=5", "-c:v", "rawvideo")
    subprocess.run(["ffmpeg", "-nostdin", "-v", "error", *source, film], check=True)
    (tmp_path / "film.en.srt").write_text(srt(SPEECH))
    with pytest.raises(AudioError, match=r"film\.avi: it holds no audio$"):
        audio_tracks(film)
    assert run(tmp_path, status=1).err == [f"asr: {film}: it holds no audio"]
