"""The pictures of docs/methods.md exist and are drawn from what the code does."""

from __future__ import annotations

import itertools
import math
import re
import string
from pathlib import Path

import pytest
import torch
import typer
from lhotse import CutSet
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image
from synthetic import CONFIG, clip, experiment, white

from asr.checkpoint import ModelFolder, save_model_folder
from asr.config import ModelFolderConfig
from asr.model.attention import Form
from asr.model.band import Chunks, Window
from asr.model.build import build_model
from asr.tokenizer import CharacterTokenizer
from docs.pictures import attention, decoding, encoder, inputs, searching, style, training
from docs.pictures.__main__ import OF_SPEECH, PLAIN, main
from docs.pictures.material import Material

FOLDER = Path(__file__).parents[1] / "docs" / "methods"
TEXT = FOLDER.with_suffix(".md").read_text(encoding="utf-8")
SECTIONS = dict(re.findall(r"^## (.+?)\n(.*?)(?=^## |\Z)", TEXT, flags=re.MULTILINE | re.DOTALL))
NO_METHODS = ("What a step of these costs", "Comparing recipes")
NAMED = re.findall(r"!\[[^\]]+\]\(methods/([\w-]+)\.png\)", TEXT)


def test_every_picture_exists_and_is_used_once() -> None:
    assert sorted(NAMED) == sorted(path.stem for path in FOLDER.glob("*.png"))
    assert set(NAMED) <= {*PLAIN, *OF_SPEECH}
    assert "](methods/" not in re.sub(r"!\[[^\]]+\]\(methods/[\w-]+\.png\)", "", TEXT)


@pytest.mark.parametrize("section", [section for section in SECTIONS if section not in NO_METHODS])
def test_every_method_has_a_switch_a_picture_and_a_result(section: str) -> None:
    text = SECTIONS[section]
    assert re.search(r"!\[[^\]]+\]\(methods/", text), "no picture"
    assert re.search(r"^ {4,}[a-z_]+: \S", text, flags=re.MULTILINE), "no switch"
    if "Not a row of the ablation" not in text:
        assert "<!-- ablation: " in text, "nothing on what it did here"
        before, after = re.split(r"<!-- ablation: .*?<!-- end -->", text, maxsplit=1, flags=re.DOTALL)
        beside = before.rstrip().rpartition("\n\n")[2], after.lstrip().partition("\n\n")[0]
        assert any(map(is_prose, beside)), "the table stands without a sentence"


def is_prose(paragraph: str) -> bool:
    """Whether a paragraph is sentences: no caption, picture, list, table or code, nor what only announces a table."""
    return bool(re.match(r"\w", paragraph)) and paragraph.rstrip().endswith(".") and len(paragraph.split()) > 15


@pytest.mark.parametrize("name", NAMED)
def test_pictures_are_small_files_of_one_width(name: str) -> None:
    path = FOLDER / f"{name}.png"
    assert path.stat().st_size < 60_000
    assert Image.open(path).width == 880


def check_labels(picture: Figure) -> None:
    """Check that both directions of all axes are labelled: there, in their row, or on a shared axis."""
    assert picture.axes, "an empty picture"
    assert all(part.get_suptitle() for part in ([picture] if picture.get_suptitle() else picture.subfigs or [picture]))
    for axis in picture.axes:
        assert axis.has_data(), "an empty picture"
        bar = hasattr(axis, "_colorbar")  # has one direction only
        x, y = (named(axis, picture, direction) for direction in "xy")
        assert (x or y) if bar else (x and y), axis.get_title()


def named(axis: Axes, picture: Figure, direction: str) -> bool:
    shared = getattr(axis, f"get_shared_{direction}_axes")()
    alike = [other for other in picture.axes if other is axis or shared.joined(axis, other)]
    if direction == "y":
        alike += [other for other in picture.axes if row(axis) and row(other) == row(axis)]
    return any(getattr(other, f"get_{direction}label")() for other in alike)


def row(axis: Axes) -> tuple[int, range] | None:
    place = axis.get_subplotspec()
    return (id(place.get_gridspec()), place.rowspan) if place else None


@pytest.mark.parametrize("name", PLAIN)
def test_pictures_without_models_are_labelled(name: str) -> None:
    check_labels(PLAIN[name]())


# ---- with untrained models ------------------------------------------------------------------------------------------

NO_ATTENTION = ["loss.guided_attention.weight=0"]
ROWS = {
    "base": [],
    "no-dropout": [],
    "inverse-sqrt": [],
    "post-norm": ["model.encoder.norm=post"],
    "shaw": ["model.encoder.position=shaw"],
    "transformer-xl": ["model.encoder.position=transformer_xl"],
    "guided": [],
    "transducer": [*NO_ATTENTION, "model.decoder={kind: transducer, dim: 8, joiner: 8}"],
    "mask-predict": [*NO_ATTENTION, "model.decoder={kind: mask_predict, layers: 1, heads: 2}"],
    "mask-ctc": [*NO_ATTENTION, "model.decoder={kind: mask_ctc, layers: 1, heads: 2}"],
    "pointer": ["model.decoder.pointer={}", "data.phrases={}"],
}
CLIPS = {
    "en/conf-now-muted": "now muted",
    "en/vm-newpassword": "new password",
    "en/vm-reenterpassword": "password",
    "en/astcc-followed-by-the-pound-key": "pound key",
    "en/seconds": "seconds",
    **{id: id.rpartition("-")[2] for id in searching.CLIPS},
}


@pytest.fixture(scope="module")
def material(tmp_path_factory: pytest.TempPathFactory) -> Material:
    """Clips of noise with the ids that are drawn, and a small untrained model for each row."""
    folder = tmp_path_factory.mktemp("pictures")
    cuts = []
    for i, (id, text) in enumerate(CLIPS.items()):
        made = clip(folder / f"{i}.wav", white(16_000 + 4_000 * i, i), text)
        cuts.append(made.with_id(id))
    CutSet.from_cuts(cuts).to_file(folder / "cuts.jsonl.gz")
    conf = folder / "run.yaml"
    conf.write_text(CONFIG.format(folder=folder, train=folder / "cuts.jsonl.gz", dev=folder / "cuts.jsonl.gz"))
    for row, changes in ROWS.items():
        save_model_folder(folder / row / "0" / "model", small(conf, ["model.encoder.layers=3", *changes]))
    return Material(folder, folder / "pointer" / "0" / "model", conf)


def small(conf: Path, changes: list[str]) -> ModelFolder:
    config = experiment(conf, *changes)
    tokenizer = CharacterTokenizer.train([string.ascii_letters + " "])
    torch.manual_seed(1)
    model = build_model(config.features, config.model, tokenizer.vocab_size).eval()
    folder = ModelFolderConfig(features=config.features, model=config.model, normalizer="basic")
    return ModelFolder(folder, model, tokenizer)


@pytest.mark.parametrize("name", OF_SPEECH)
def test_pictures_of_models_are_labelled(name: str, material: Material, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(searching, "DRAWS", 2)
    monkeypatch.setattr(encoder, "REACH", 5)
    monkeypatch.setattr(inputs, "SIZE", 28)
    check_labels(OF_SPEECH[name](material))


def test_pictures_of_missing_models_are_left_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(typer.Exit):
        main(["norms", "schedules"], tmp_path / "out", tmp_path, tmp_path, Path("conf/prompts/en.yaml"))
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["schedules.png"]
    assert re.match(r"norms: left out: \S+: no model folder", capsys.readouterr().err)


# ---- what is drawn --------------------------------------------------------------------------------------------------


def test_attended_frames_of_window_and_chunks() -> None:
    frame_T = torch.arange(40)
    after_TT = frame_T - frame_T[:, None]
    assert torch.equal(encoder.attended(Window(Form(), 5, 3), 40) > 0, (after_TT >= -5) & (after_TT <= 3))
    chunks_TT = frame_T // 8 - (frame_T // 8)[:, None]
    assert torch.equal(encoder.attended(Chunks(Form(), 8, 1), 40) > 0, (chunks_TT == 0) | (chunks_TT == -1))


def test_a_prediction_depends_on_the_tokens_so_far_and_on_the_speech() -> None:
    token_LL, frame_LT = attention.seen()
    assert torch.equal(token_LL, torch.ones(12, 12).tril() > 0)
    assert torch.equal(frame_LT, (torch.arange(24) < 18).expand(12, -1))


def test_costs_are_read_from_the_table() -> None:
    assert [row[0] for row in encoder.cost_rows(TEXT)] == [10, 60, 300, 600]
    relative = encoder.cost_rows(TEXT, ", transformer_xl")
    assert [row[0] for row in relative] == [10, 60, 300, 600]
    assert math.isnan(relative[0][1])  # measured while the machine was busy
    assert all(row[2] > row[4] for row in relative), "a window saves memory"


def test_guided_attention_penalties() -> None:
    assert training.penalties(2, 4)[1, 2] == 0
    assert training.penalties(2, 4)[0, 3] == pytest.approx(1 - torch.exp(torch.tensor(-(0.75**2) / 0.08)))


def test_passing_is_the_share_of_alignments_through_each_node() -> None:
    torch.manual_seed(3)
    T, text_L, blank = 3, torch.tensor([2, 1]), 0
    logits_1TUV = torch.randn(1, T, 3, 4)
    prob_TUV = logits_1TUV[0].softmax(-1)
    through_TU, total = torch.zeros(T, 3), 0.0
    for at in itertools.combinations_with_replacement(range(T), 2):  # the frame of each token
        share, passed = 1.0, []
        for t in range(T):
            for u in range(sum(a < t for a in at), 3):
                passed.append((t, u))
                if u < 2 and at[u] == t:
                    share *= float(prob_TUV[t, u, text_L[u]])
                    continue
                share *= float(prob_TUV[t, u, blank])
                break
        total += share
        for place in passed:
            through_TU[place] += share
    torch.testing.assert_close(decoding.passing(logits_1TUV, text_L, blank), through_TU / total)


def test_saved_pictures_keep_their_colours(tmp_path: Path) -> None:
    picture, axes = style.figure("one", 1.0)
    axes[0, 0].axvspan(0, 1, color=style.ORANGE)
    style.save(picture, tmp_path / "one.png")
    colours = Image.open(tmp_path / "one.png").convert("RGB").getcolors(1 << 16)
    assert {(255, 255, 255), (230, 159, 0)} <= {colour for _, colour in colours}
