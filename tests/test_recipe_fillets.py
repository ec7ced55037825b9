"""The fillets recipe on a game of three levels: parsing of scripts, splits, and what is left out."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hostile import deb, tar
from lhotse import CutSet
from typer.testing import CliRunner

from asr.errors import DataError
from recipes.fillets import prepare as recipe
from recipes.fillets.dialogs import Line, read_dialogs
from recipes.preparing import SPLITS, split_of

TRAIN, DEV, TEST = "airplane", "aztec", "bathroom"


def ogg(path: Path, seed: int, samples: int = 2000) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    noise_N = np.random.default_rng(seed).normal(0, 0.1, samples)
    soundfile.write(path, noise_N, 22_050, format="OGG", subtype="VORBIS")


def script(game: Path, level: str, language: str, content: str) -> None:
    path = game / "script" / level / f"dialogs_{language}.lua"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content, encoding="utf-8")


@pytest.fixture
def game(tmp_path: Path) -> Path:
    """A game with a transcribed recording in each level and, in the first, some that are left out."""
    game = tmp_path / "game"
    for seed, level in enumerate((TRAIN, DEV, TEST)):
        line = 'dialogId("hi", "font_small", "Hello!")\n'
        script(game, level, "cs", f'-- dialogId("old", "font_small", "Old")\n{line}dialogStr("Ahoj!")\n')
        script(game, level, "de", f'{line}dialogStr("Hallo\\n\\"du\\"!")\n')
        ogg(game / "sound" / level / "cs" / "hi.ogg", seed)
    more = (
        'dialogId("mute", "font_big", "Nobody says it.")\ndialogStr(\n  "Nikdo.")\n'
        'dialogId("splash", "", "")\n'
        'dialogId("bare", "font_big", "Not translated.")\n'
        'dialogStr("bare", "of three")\n'
    )
    with (game / "script" / TRAIN / "dialogs_cs.lua").open("a") as file:
        file.write(more)
    for seed, name in enumerate(("splash", "bare", "unknown"), start=10):
        ogg(game / "sound" / TRAIN / "cs" / f"{name}.ogg", seed)
    return game


def run(*words: object, status: int = 0) -> str:
    result = CliRunner().invoke(recipe.app, [str(word) for word in words])
    assert result.exit_code == status, (result.output, result.exception)
    return result.output


def test_levels_become_splits_with_texts_and_translations(game: Path, tmp_path: Path) -> None:
    assert [split_of(level) for level in (TRAIN, DEV, TEST)] == list(SPLITS)
    output = run("--languages", "cs", "--source", game, "--out", tmp_path / "o")
    for split, level in zip(SPLITS, (TRAIN, DEV, TEST), strict=True):
        (cut,) = CutSet.from_file(tmp_path / "o" / f"cuts_{split}.jsonl.gz")
        (said,) = cut.supervisions
        assert (cut.id, said.text, said.language, said.speaker) == (f"cs/{level}/hi", "Ahoj!", "cs", "cs-small")
        assert said.custom == {"translations": {"en": "Hello!", "de": 'Hallo "du"!'}}
        assert (cut.recording.sampling_rate, cut.recording.num_samples) == (22_050, 2000)
    (item,) = json.loads((tmp_path / "o" / "prepared.json").read_text())["report"]["languages"]
    left_out = {reason: by_split["train"] for reason, by_split in item["dropped"].items()}
    assert left_out == {
        "no audio": [f"{TRAIN}/mute"],
        "a sound, not speech": [f"{TRAIN}/splash"],
        "no text in this language": [f"{TRAIN}/bare"],
        "no text": [f"{TRAIN}/unknown"],
    }
    assert f"skipped {game}/script/{TRAIN}/dialogs_cs.lua:9: " in output


def test_unreadable_recording_is_left_out(game: Path, tmp_path: Path) -> None:
    (game / "sound" / TRAIN / "cs" / "hi.ogg").write_bytes(b"")
    ogg(game / "sound" / TRAIN / "cs" / "mute.ogg", 20)
    run("--languages", "cs", "--source", game, "--out", tmp_path / "o")
    (cut,) = CutSet.from_file(tmp_path / "o" / "cuts_train.jsonl.gz")
    assert cut.id == f"cs/{TRAIN}/mute"


def test_second_run_does_nothing_unless_files_changed(game: Path, tmp_path: Path) -> None:
    words = ("--languages", "cs", "--source", game, "--out", tmp_path / "o")
    run(*words)
    path = tmp_path / "o" / "cuts_train.jsonl.gz"
    before, written = path.read_bytes(), path.stat().st_mtime_ns
    run(*words)
    assert path.stat().st_mtime_ns == written
    path.unlink()
    run(*words)
    assert path.read_bytes() == before
    ogg(game / "sound" / TRAIN / "cs" / "hi.ogg", 30, samples=3000)
    run(*words)
    (cut,) = CutSet.from_file(path)
    assert cut.recording.num_samples == 3000


def test_packages_of_each_source_are_unpacked_separately(game: Path, tmp_path: Path) -> None:
    out = tmp_path / "o"
    for source, text in (("a", "Ahoj!"), ("b", "Dobrý den!")):
        script(game, DEV, "cs", f'dialogId("hi", "font_small", "Hello!")\ndialogStr("{text}")\n')
        files = [path for path in sorted(game.rglob("*")) if path.is_file()]
        members = [(f"{recipe.GAME}/{path.relative_to(game)}", path.read_bytes()) for path in files]
        (tmp_path / source).mkdir()
        for name, held in zip(recipe.PACKAGES, (members, [], []), strict=True):
            (tmp_path / source / f"{name}_1.0_all.deb").write_bytes(deb(tar(*held)))
        run("--languages", "cs", "--source", tmp_path / source, "--out", out)
        (cut,) = CutSet.from_file(out / "cuts_dev.jsonl.gz")
        assert cut.supervisions[0].text == text
    assert len(list(out.glob("unpacked-*"))) == 2


def test_missing_inputs_are_reported(game: Path, tmp_path: Path) -> None:
    out = ("--out", tmp_path / "o")
    assert "choose from cs,nl" in run("--languages", "xx", *out, status=1)
    assert "no such folder" in run("--source", tmp_path / "none", *out, status=1)
    (tmp_path / "empty").mkdir()
    assert "holds neither" in run("--source", tmp_path / "empty", *out, status=1)
    assert "no recording in 'nl' has a text" in run("--languages", "nl", "--source", game, *out, status=1)
    assert not list((tmp_path / "o").glob("cuts_*"))


def test_dialog_scripts_are_parsed_and_faults_reported(tmp_path: Path) -> None:
    path = tmp_path / "dialogs_cs.lua"
    path.write_text(
        '\ufeffdialogId("a", "font_big", "One \\\\ two")\ndialogStr("Jedna\\/dvě")\n'
        'dialogId("a", "font_big", "Again")\ndialogStr("Znovu")\n'
        'dialogId("b", font, "Three")\ndialogStr("Tři")\n',
        encoding="utf-8",
    )
    lines, faults = read_dialogs(path)
    assert lines == {"a": Line("font_big", "One \\ two", "Jedna/dvě")}
    assert faults == [f"{path}:5: a call with wrong arguments"]
    path.write_bytes(b'dialogStr("\xff")')
    with pytest.raises(DataError, match="not a script in UTF-8"):
        read_dialogs(path)
