"""`asr report`: the contents of the page, what is refused, and what is left behind."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
import soundfile
from command import asr
from hostile import noise
from hypothesis import given, settings
from hypothesis import strategies as st
from lhotse import CutSet, Recording
from PIL import Image

from asr.metrics import align
from asr.report import media, write_report
from asr.report.figures import Scale
from asr.report.utterances import runs, script_json
from asr.scoring import ScoreOptions

REFS = {"a/1": "the cat sat", "a/2": "good night", "a/3": "yes", "a/4": "so it is"}
FIRST = {"a/1": "the hat sat so", "a/2": "good night", "a/3": "", "a/4": "so is"}
SECOND = {"a/1": "the cat sat", "a/2": "good knight", "a/3": "yes", "a/4": "so it is"}


class Page(HTMLParser):
    """The elements of a page with their attributes, and the texts of scripts and styles."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.raw: list[tuple[dict[str, str | None], str]] = []
        self.text = path.read_text(encoding="utf-8")
        self.feed(self.text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag in ("script", "style"):
            self.raw.append((dict(attrs), ""))

    def handle_data(self, data: str) -> None:
        if self.tags and self.tags[-1][0] in ("script", "style") and self.cdata_elem:
            attributes, text = self.raw[-1]
            self.raw[-1] = attributes, text + data

    def data(self, id: str) -> Any:
        (found,) = [text for attributes, text in self.raw if attributes.get("id") == id]
        return json.loads(found)

    @property
    def media(self) -> dict[tuple[int, str], bytes]:
        """Audio and pictures by utterance number and kind."""
        return {
            (int(a["data-of"]), str(a["data-kind"])): base64.b64decode(text.partition(",")[2])
            for a, text in self.raw
            if a.get("data-of")
        }


def lines(path: Path, texts: dict[str, str]) -> Path:
    path.write_text("".join(json.dumps({"id": id, "text": text}) + "\n" for id, text in texts.items()))
    return path


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    systems = {"ref": REFS, "first": FIRST, "second": SECOND}
    return [lines(tmp_path / f"{name}.jsonl", texts) for name, texts in systems.items()]


def report(*words: object, folder: Path) -> Page:
    done = asr("report", *words, "--out", folder)
    assert (done.status, done.out, done.err) == (0, f"{folder / 'report.html'}\n", [])
    return Page(folder / "report.html")


def test_figures_equal_those_of_asr_score(files: list[Path], tmp_path: Path) -> None:
    options = ("--metric", "wer,cer,bleu", "--normalizer", "basic", "--breakdown", "length")
    page = report(*files, *options, folder=tmp_path / "r")
    found = json.loads(asr("score", *files, *options, "--json").out)
    shown = re.sub(r"<[^>]*>|\s+", " ", page.text.replace("&gt;", ">").replace("&lt;", "<"))
    shown = re.sub(r"\s+", " ", shown)
    for system in found["systems"]:
        for name in ("wer", "cer"):
            metric = system["metrics"][name]
            low, high = metric["interval_95"]
            assert f"{100 * metric['rate']:.2f} {100 * low:.2f} to {100 * high:.2f}" in shown
            counts = (metric[c] for c in ("substitutions", "deletions", "insertions", "hits", "reference_length"))
            assert " ".join(map(str, counts)) in shown
        bleu = system["metrics"]["bleu"]
        low, high = bleu["interval_95"]
        assert f"{bleu['score']:.2f} {low:.2f} to {high:.2f}" in shown
    pairs = list(zip(*(system["breakdown"]["length"] for system in found["systems"]), strict=True))
    for name, scale in (("wer", 100), ("bleu", 1)):
        (card,) = re.findall(rf"{name.upper()} by length of the reference<.*?</section>", page.text, re.DOTALL)
        told = re.findall(r"<b class=\"letter system-.\">.</b> ([0-9.]+)</div>", card)
        assert told == [f"{scale * group[name]:.2f}" for pair in pairs for group in pair]
    for contest in found["contests"]:
        assert contest["in_words"] in shown
    assert "normaliser of both sides: basic" in shown
    assert "bootstrap by utterance, 10,000 resamples and 1,000 resamples of BLEU" in shown


TOKENS = st.lists(st.sampled_from(["a", "b", "cd", "ü", "</script>"]), max_size=8)


@settings(max_examples=100)
@given(reference=TOKENS, said=TOKENS)
def test_alignment_runs_and_reference_restore_the_hypothesis(reference: list[str], said: list[str]) -> None:
    rest, told = list(reference), []
    for mark, what in runs(align(" ".join(reference), " ".join(said)), " "):
        tokens = what.split(" ") if isinstance(what, str) else []
        taken = [rest.pop(0) for _ in range(what if isinstance(what, int) else len(tokens) if mark == "S" else 0)]
        told += taken if mark == "=" else tokens
    assert (told, rest) == (said, [])


def test_counts_of_utterances_match_their_alignments(files: list[Path], tmp_path: Path) -> None:
    page = report(*files, folder=tmp_path / "r")
    rows = {row["id"]: row for row in page.data("lines")}
    assert list(rows) == list(REFS)
    assert rows["a/1"]["hyps"] == [[["=", 1], ["S", "hat"], ["=", 1], ["I", "so"]], [["=", 3]]]
    for row in rows.values():
        for counts, alignment in zip(row["counts"], row["hyps"], strict=True):
            told: Counter[str] = Counter()
            for mark, what in alignment:
                told[mark] += what if isinstance(what, int) else len(what.split())
            assert counts == [told[mark] for mark in "=SDI"]


def test_characters_are_aligned_if_cer_comes_first(tmp_path: Path) -> None:
    ref, hyp = lines(tmp_path / "ref.jsonl", {"u": "今天 很好"}), lines(tmp_path / "hyp.jsonl", {"u": "今天很子吧"})
    page = report(ref, hyp, "--metric", "cer,wer", folder=tmp_path / "r")
    assert page.data("data")["unit"] == "character"
    (row,) = page.data("lines")
    assert (row["ref"], row["hyps"]) == (
        "今天 很好",
        [[[mark, what] for mark, what in runs(align("今天 很好", "今天很子吧", "character"), "")]],
    )
    assert "CER by length of the reference" in page.text
    assert "1-5 characters" in page.text


def test_mixed_tokens_are_aligned_if_the_mixed_rate_comes_first(tmp_path: Path) -> None:
    ref, hyp = lines(tmp_path / "ref.jsonl", {"u": "你好 hello"}), lines(tmp_path / "hyp.jsonl", {"u": "你们 hollow"})
    page = report(ref, hyp, "--metric", "mixed,wer", folder=tmp_path / "r")
    assert page.data("data")["unit"] == "token"
    (row,) = page.data("lines")
    assert (row["ref"], row["hyps"]) == ("你 好 hello", [[["=", 1], ["S", "们 hollow"]]])
    assert "MIXED by length of the reference" in page.text


def test_words_are_aligned_on_a_page_without_error_rates(files: list[Path], tmp_path: Path) -> None:
    page = report(*files, "--metric", "bleu", folder=tmp_path / "r")
    assert page.data("lines")[1]["hyps"] == [[["=", 2]], [["=", 1], ["S", "knight"]]]
    assert "bootstrap by utterance, 1,000 resamples of BLEU" in page.text
    assert "Scores of translation" in page.text
    assert "BLEU by length of the reference" in page.text


def test_page_is_self_contained(files: list[Path], tmp_path: Path) -> None:
    page = report(*files, folder=tmp_path / "r")
    assert list((tmp_path / "r").iterdir()) == [tmp_path / "r" / "report.html"]
    for tag, attributes in page.tags:
        assert tag not in ("link", "iframe", "object", "embed", "base"), tag
        for name in ("src", "href", "data", "srcset", "action", "style"):
            assert (attributes.get(name) or "#").startswith("#"), (tag, attributes)
        assert not any(name.startswith("on") for name in attributes), (tag, attributes)
    (policy,) = [a["content"] for tag, a in page.tags if a.get("http-equiv") == "Content-Security-Policy"]
    assert policy is not None
    rules = dict(rule.split(" ", 1) for rule in policy.split("; "))
    (style,) = [text for attributes, text in page.raw if not attributes]
    (script,) = [text for attributes, text in page.raw if attributes.get("type") == "module"]
    for name, text in (("style-src", style), ("script-src", script)):
        assert rules.pop(name) == f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
        assert not re.search(r"url\(|@import|https?:|import\s*\(|fetch\(", text)
    assert rules == {
        "default-src": "'none'",
        "img-src": "data:",
        "media-src": "data:",
        "base-uri": "'none'",
        "form-action": "'none'",
    }


def test_hostile_texts_create_no_elements(files: list[Path], tmp_path: Path) -> None:
    nasty = "</script><img src=x onerror=y> <!-- <script> {{7*7}} ]]> &lt; \u2028 '\" \ud800"
    texts = {f"{nasty} {number}": f"{nasty} {text}" for number, text in enumerate(("one", "two"))}
    ref = lines(tmp_path / "<b>ref.jsonl", texts)
    hyp = lines(tmp_path / "<b>hyp.jsonl", {id: f"<i> {text}" for id, text in texts.items()})
    page = report(ref, hyp, hyp, folder=tmp_path / "r")
    plain = report(*files, files[1], folder=tmp_path / "plain")
    assert {tag for tag, _ in page.tags} <= {tag for tag, _ in plain.tags}
    assert [row["id"] for row in page.data("lines")] == list(texts)
    assert " ".join(nasty.split()) in page.data("lines")[0]["ref"]
    assert json.loads(script_json(nasty)) == nasty


def test_only_the_worst_utterances_are_shown(files: list[Path], tmp_path: Path) -> None:
    page = report(*files, "--utterances", 2, folder=tmp_path / "r")
    assert [row["id"] for row in page.data("lines")] == ["a/1", "a/2"]
    assert "The 2 with most errors, of 4." in page.text


def test_only_an_earlier_report_is_overwritten(files: list[Path], tmp_path: Path) -> None:
    folder = tmp_path / "r"
    first = report(*files[:2], folder=folder).text
    assert report(*files, folder=folder).text != first
    (folder / "report.html").write_text("<html>my own report of the year</html>")
    done = asr("report", *files, "--out", folder)
    assert (done.status, done.out) == (2, "")
    assert done.err == [
        f"asr: {folder}/report.html: was not written by asr report: give another --out, or move it away"
    ]
    assert (folder / "report.html").read_text() == "<html>my own report of the year</html>"


def test_failed_report_leaves_no_page(files: list[Path], tmp_path: Path) -> None:
    files[1].write_text('{"id": "a/1", "text": "x"}\n')
    done = asr("report", *files, "--out", tmp_path / "r")
    assert (done.status, len(done.err)) == (2, 1)
    assert "lacks 3 ids" in done.err[0]
    assert list((tmp_path / "r").iterdir()) == []


# --- audio and pictures -------------------------------------------------------------------------------


@pytest.fixture
def audio(tmp_path: Path) -> Path:
    """Recordings of all utterances, one of them broken."""
    folder = tmp_path / "audio"
    (folder / "a").mkdir(parents=True)
    for number in (1, 2, 4):
        soundfile.write(folder / "a" / f"{number}.wav", 0.1 * noise(0.5, 8000), 8000)
    (folder / "a" / "3.wav").write_text("This is no audio.\n" * 20)
    (folder / "a" / "1.txt").write_text("What is said in the first one.\n")
    return folder


def test_worst_utterances_get_audio_and_pictures(files: list[Path], audio: Path, tmp_path: Path) -> None:
    folder = tmp_path / "r"
    done = asr("report", *files, "--audio", audio, "--out", folder)
    assert (done.status, done.out) == (1, f"{folder}/report.html\n")
    assert len(done.err) == 1
    assert "audio/a/3.wav" in done.err[0]
    found = Page(folder / "report.html").media
    assert set(found) == {(number, kind) for number in (0, 1, 3) for kind in ("audio", "log-mel")}
    path = tmp_path / "clip.flac"
    path.write_bytes(found[0, "audio"])
    samples, rate = soundfile.read(path)
    assert (len(samples), rate) == (8000, 16000)
    (tmp_path / "mel.png").write_bytes(found[0, "log-mel"])
    assert Image.open(tmp_path / "mel.png").size[0] > 500
    few = report(*files, "--audio", audio, "--media", 1, folder=tmp_path / "few")
    assert {number for number, _ in few.media} == {0}


def test_audio_is_found_through_cuts(files: list[Path], audio: Path, tmp_path: Path) -> None:
    cuts = tmp_path / "cuts.jsonl.gz"
    recordings = [Recording.from_file(audio / "a" / f"{n}.wav", recording_id=f"a/{n}") for n in (1, 2, 4)]
    CutSet.from_cuts(recording.to_cut().with_id(recording.id) for recording in recordings).to_file(cuts)
    done = asr("report", *files, "--audio", cuts, "--out", tmp_path / "r")
    assert (done.status, done.err) == (1, [f"asr: {cuts}: there is no cut a/3"])
    assert {number for number, kind in Page(tmp_path / "r" / "report.html").media if kind == "audio"} == {0, 1, 3}


def test_pictures_are_found_by_id(files: list[Path], tmp_path: Path) -> None:
    pictures = tmp_path / "plots"
    pictures.mkdir()
    for step in (1, 2):  # as training names them
        Image.new("RGB", (step, 1)).save(pictures / f"a-1-step-000000{step}.png")
    (pictures / "a-2.png").write_text("<svg onload=alert(1)>")
    (pictures / "a-4.svg").write_text("<svg onload=alert(1)>")
    done = asr("report", *files, "--images", pictures, "--out", tmp_path / "r")
    assert (done.status, done.err) == (1, [f"asr: {pictures}/a-2.png: neither PNG nor JPEG"])
    found = Page(tmp_path / "r" / "report.html").media
    assert list(found) == [(0, "picture")]
    assert found[0, "picture"] == (pictures / "a-1-step-0000002.png").read_bytes()


@pytest.mark.parametrize("id", ["../secret", "/etc/hostname", "..", ""])
def test_id_cannot_name_a_picture_outside_the_folder(tmp_path: Path, id: str) -> None:
    (tmp_path / "in").mkdir()
    Image.new("RGB", (1, 1)).save(tmp_path / "secret.png")
    assert list(media.pictures_in(tmp_path / "in")(id)) == []


def test_total_size_of_media_is_limited(
    files: list[Path], audio: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(media, "MOST_BYTES", 100_000)
    said: list[str] = []
    path = write_report(files[0], files[1:], ScoreOptions(), tmp_path / "r", audio=audio, failed=said.append)
    assert 0 < sum(map(len, Page(path).media.values())) <= 100_000
    assert said[-1].startswith("audio and pictures fill 0 MiB after ")


def test_missing_folder_is_reported_in_one_line(files: list[Path], tmp_path: Path) -> None:
    done = asr("report", *files, "--images", tmp_path / "none", "--out", tmp_path / "r")
    assert (done.status, done.err) == (2, [f"asr: {tmp_path}/none: there is no such folder"])


@pytest.mark.parametrize(("most", "end", "marks"), [(0.104, 0.15, 4), (1.0, 1.0, 6), (0.0, 0.01, 6), (3.0, 3.0, 4)])
def test_axes_end_at_round_numbers(most: float, end: float, marks: int) -> None:
    scale = Scale.up_to(most)
    assert scale.end == pytest.approx(end)
    assert len(scale.ticks) == marks
    assert scale.at(scale.ticks[-1]) == 100
