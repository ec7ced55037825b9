"""`asr cuts`: converting a table of clips into a manifest, with one error line per bad row."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
import soundfile as sf
from command import asr
from lhotse.cut import Cut
from marks import needs_ffmpeg
from synthetic import CONFIG, RATE, white

from asr.data.cuts import load_audio, read_cuts, text_of, whole_file


@pytest.fixture
def clips(tmp_path: Path) -> Path:
    """A folder of recordings: mono, stereo, and two with the same name."""
    folder = tmp_path / "clips"
    for name, seconds, channels in (("a.wav", 1.0, 1), ("b.flac", 2.0, 2), ("x/c.wav", 0.5, 1), ("y/c.wav", 0.7, 1)):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        sf.write(folder / name, white(round(seconds * RATE) * channels).reshape(-1, channels), RATE)
    return folder


def written(folder: Path, text: str, name: str = "clips.csv") -> Path:
    """Write a table into the folder and return its path."""
    (folder / name).write_text(text, encoding="utf-8")
    return folder / name


def made(table: Path, *options: str) -> list[Cut]:
    """Convert a table that must have no errors, and return its cuts."""
    out = table.parent / "new" / "cuts.jsonl.gz"
    done = asr("cuts", table, "--out", out, *options)
    assert (done.status, done.err) == (0, []), done
    return list(read_cuts(out))


def test_each_row_becomes_a_cut(clips: Path) -> None:
    cuts = made(written(clips, 'path,text\na.wav,"one, two"\nb.flac,three\n'), "--language", "en")
    assert [(cut.id, text_of(cut), cut.duration) for cut in cuts] == [("a", "one, two", 1.0), ("b", "three", 2.0)]
    assert [cut.supervisions[0].language for cut in cuts] == ["en", "en"]
    assert [whole_file(cut) for cut in cuts] == [str(clips / "a.wav"), str(clips / "b.flac")]
    assert [len(load_audio(cut, RATE)) for cut in cuts] == [RATE, 2 * RATE]


def test_common_column_names_and_tab_separated_tables_are_read(clips: Path) -> None:
    text = f'\ufeffclient_id\tFile\tSentence\tlocale\nann\t{clips / "a.wav"}\tsay "one"\tde\n\nbob\tb.flac\t\t\n'
    cuts = made(written(clips, text, "clips.tsv"), "--language", "en")
    (ann, bob) = (cut.supervisions[0] for cut in cuts)
    assert (ann.speaker, ann.text, ann.language) == ("ann", 'say "one"', "de")
    assert (bob.speaker, bob.text, bob.language) == ("bob", "", "en")


def test_empty_lines_before_the_names_are_skipped(clips: Path) -> None:
    (one,) = made(written(clips, "\n \npath;text\na.wav;one\n"))
    assert text_of(one) == "one"
    done = asr("cuts", written(clips, "\n\npath;text\na.wav;one;two\n"), "--out", clips / "new.jsonl.gz")
    assert "clips.csv:4: 3 columns" in done.err[0]


def test_start_and_end_columns_select_parts_of_a_file(clips: Path) -> None:
    cuts = made(written(clips, "path,text,start,end\nb.flac,one,0,0.75\nb.flac,two,0.75,\nb.flac,three,1.5,2.05\n"))
    spans = [("b-000000000", 0.0, 0.75), ("b-000000750", 0.75, 1.25), ("b-000001500", 1.5, 0.5)]
    assert [(cut.id, cut.start, cut.duration) for cut in cuts] == spans
    assert [len(load_audio(cut, RATE)) for cut in cuts] == [6000, 10000, 4000]


def test_ids_are_file_stems_or_paths_if_stems_are_ambiguous(clips: Path) -> None:
    cuts = made(written(clips, "path,text,id\na.wav,1,\nx/c.wav,2,\ny/c.wav,3,\nb.flac,4,mine\n"))
    assert [cut.id for cut in cuts] == ["a", "x/c", "y/c", "mine"]


def test_bad_rows_are_reported_and_the_others_are_kept(clips: Path) -> None:
    (clips / "text.wav").write_text("no audio")
    rows = (
        *("a.wav,one,,", "none.wav,two,,", "text.wav,three,,", "a.wav,four,0.5,9", "a.wav,five,now,"),
        *("a.wav,six", ",seven,,", "a.wav,eight,0.8,0.2", "b.flac,nine,,"),
    )
    table, out = written(clips, "\n".join(["path,text,start,end", *rows])), clips / "cuts.jsonl"
    done = asr("cuts", table, "--out", out)
    assert done.status == 1
    problems = (
        f"3: {clips / 'none.wav'}: no such file",
        f"4: {clips / 'text.wav'}: ",
        f"5: {clips / 'a.wav'}: lasts 1.00 s, but the row goes to 9 s",
        "6: a.wav: its start, now, is no number of seconds",
        "7: 2 columns, but the first line names 4",
        "8: no path",
        f"9: {clips / 'a.wav'}: the row starts at 0.8 s and ends at 0.2 s",
    )
    for line, problem in zip(sorted(done.err), problems, strict=True):
        assert line.startswith(f"asr: {table}:{problem}")
    assert done.out == f"{out}: 2 cuts, 0.00 hours; rows left out: 7\n"
    assert [text_of(cut) for cut in read_cuts(out)] == ["one", "nine"]


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("clips.txt", "path,text\n", "a table's name ends in .csv or .tsv"),
        (
            "clips.csv",
            "",
            "no column path (or audio_filepath, file, filename, file_name, audio, audio_path, wav); there are",
        ),
        ("clips.csv", "path|text\n", "there are: path|text"),
        ("clips.csv", "path;text\n", "the table has no rows"),
        (
            "clips.csv",
            "path,words\n",
            "no column text (or sentence, transcript, transcription); there are: path, words",
        ),
        ("clips.csv", "path,text\n", "the table has no rows"),
        ("clips.csv", "path,text\nnone.wav,one\n", "no row can be used"),
        ("clips.csv", "path,text\na.wav,one\na.wav,two\n", ":3: a.wav stands in line 2, too: give the table a column"),
        ("clips.csv", "path,text,id\na.wav,one,1\nb.flac,two,1\n", ":3: 1 stands in line 2, too: ids must differ"),
        ("clips.csv", 'path,text\na.wav,"one" two\n', "clips.csv:2: "),
    ],
)
def test_an_unusable_table_is_refused_and_leaves_no_file(clips: Path, name: str, text: str, says: str) -> None:
    done = asr("cuts", written(clips, text, name), "--out", clips / "cuts.jsonl.gz")
    assert done.status == 2
    assert says in done.err[-1]
    assert not list(clips.glob("*.gz")) + list(clips.glob(".*"))


def test_manifest_name_must_have_a_known_suffix(clips: Path) -> None:
    done = asr("cuts", written(clips, "path,text\na.wav,one\n"), "--out", clips / "cuts.json")
    assert (done.status, done.err) == (
        2,
        [f"asr: {clips}/cuts.json: a manifest's name ends in .jsonl.gz or .jsonl"],
    )


@needs_ffmpeg
def test_m4a_clips_can_be_trained_on_and_evaluated(tmp_path: Path) -> None:
    rows = ["path,text"]
    for number in range(6):
        source = tmp_path / f"{number}.wav"
        sf.write(source, white(RATE, number), RATE)
        subprocess.run(["ffmpeg", "-nostdin", "-v", "error", "-i", source, source.with_suffix(".m4a")], check=True)
        rows.append(f"{number}.m4a,one two")
    cuts = tmp_path / "cuts.jsonl.gz"
    assert asr("cuts", written(tmp_path, "\n".join(rows)), "--out", cuts).status == 0
    config = written(tmp_path, CONFIG.format(folder=tmp_path, train=cuts, dev=cuts), "run.yaml")
    done = asr("train", config, "trainer.max_epochs=null", "trainer.max_steps=2", "trainer.plot_utterances=0")
    assert done.status == 0, done.err
    done = asr("evaluate", cuts, "--model", tmp_path / "run" / "model")
    assert done.status == 0, done.err
    assert "6 utterances" in done.out


def test_cuts_and_score_accept_the_same_tables(clips: Path) -> None:
    table = written(clips, "Audio_Filepath;Sentence\na.wav;one, two\nx/c.wav;three\n")
    assert asr("cuts", table, "--out", clips / "cuts.jsonl").status == 0
    assert [(cut.id, text_of(cut)) for cut in read_cuts(clips / "cuts.jsonl")] == [("a", "one, two"), ("c", "three")]
    for name in ("Audio_Filepath", "filename", "file_name", "AUDIO_PATH"):
        other = written(clips, table.read_text().replace("Audio_Filepath", name), "other.csv")
        assert asr("score", clips / "cuts.jsonl", other).status == 0
