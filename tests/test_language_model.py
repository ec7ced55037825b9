"""The Transformer language model: cached steps, exact resume, and use in the search."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from command import asr
from models import noises, small_model

from asr.checkpoint import LanguageFolder, load_language_model, load_state, save_model_folder
from asr.config import LanguageExperimentConfig, LanguageFolderConfig, LanguageModelConfig, parse_yaml, read_config
from asr.data.batch import pad_audio
from asr.errors import AsrError, CheckpointError, ConfigError
from asr.model.build import build_language_model
from asr.model.language import LanguageModel
from asr.recognizer import Recognizer
from asr.tokenizer import CharacterTokenizer
from asr.training.language import summed_loss, train_language_model

pytestmark = pytest.mark.filterwarnings("ignore:.*length cap")  # random models often reach it

SMALL = {"layers": 2, "dim": 16, "heads": 2, "feed_forward": 32, "dropout": 0.1}
CONF = Path(__file__).parents[1] / "conf"


def untrained(norm: str = "pre", vocab_size: int = 11) -> LanguageModel:
    torch.manual_seed(1)
    model = build_language_model(LanguageModelConfig(**SMALL, norm=norm), vocab_size, 1).eval()
    with torch.no_grad():
        for weight in model.parameters():
            weight.mul_(2.0)
    return model


@pytest.mark.parametrize("norm", ["pre", "post"])
@torch.no_grad()
def test_cached_steps_equal_the_full_pass_under_reordering(norm: str) -> None:
    model = untrained(norm)
    tokens_BL = torch.randint(4, 11, (3, 20), generator=torch.Generator().manual_seed(2))
    whole_BLV = model(torch.cat([torch.ones(3, 1, dtype=torch.long), tokens_BL], 1), torch.tensor([21, 21, 21]))
    expected_BLV = whole_BLV.log_softmax(-1)
    found_NV, state = model.step(torch.tensor([[7, 8]] * 3), model.start(None))  # start tokens of a speech model
    assert torch.allclose(found_NV, expected_BLV[:, 0], atol=1e-5)
    rows = torch.arange(3)
    for at in range(20):
        order = torch.tensor([[0, 1, 2], [2, 0, 1], [1, 1, 0]][at % 3])
        rows, state = rows[order], model.reorder(state, order)
        found_NV, state = model.step(tokens_BL[rows, at : at + 1], state)
        assert torch.allclose(found_NV, expected_BLV[rows, at + 1], atol=1e-5)


@torch.no_grad()
def test_texts_of_different_lengths_grow_together_as_alone() -> None:
    """Some hypotheses gain a token at each step, -1 standing for none, and their order changes."""
    model, draw = untrained(), torch.Generator().manual_seed(3)
    texts: list[list[int]] = [[1], [1], [1]]
    found_NV, state = model.step(torch.tensor([[7]] * 3), model.start(None))
    for _ in range(12):
        token_N = torch.randint(4, 11, (3,), generator=draw).where(torch.rand(3, generator=draw) < 0.5, -1)
        order_N = torch.randint(3, (3,), generator=draw)
        texts = [
            [*texts[i], *([token] if token >= 0 else [])] for i, token in zip(order_N, token_N.tolist(), strict=True)
        ]
        found_NV, state = model.step(token_N[:, None], model.reorder(state, order_N))
        for text, found_V in zip(texts, found_NV, strict=True):
            expected_V = model(torch.tensor([text]), torch.tensor([len(text)]))[0, -1].log_softmax(-1)
            assert torch.allclose(found_V, expected_V, atol=1e-5)
    assert len({len(text) for text in texts}) > 1


@torch.no_grad()
def test_batched_loss_equals_the_sum_over_single_tokens() -> None:
    model = untrained()
    texts = [[1, 5, 6, 2], [1, 4, 4, 9, 8, 7, 2], [1, 2]]
    total = 0.0
    for text in texts:
        for at in range(1, len(text)):
            logits = model(torch.tensor([text[:at]]), torch.tensor([at]))[0, -1]
            total -= float(logits[text[at]]) - math.log(sum(math.exp(x) for x in logits.tolist()))
    loss, tokens = summed_loss(model, texts)
    assert float(loss) == pytest.approx(total, abs=1e-4)
    assert tokens == 10
    assert float(loss) == pytest.approx(sum(float(summed_loss(model, [t])[0]) for t in texts), abs=1e-4)


# ---- training -----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("language")
    save_model_folder(path / "speech", small_model())
    (path / "texts.txt").write_text("hello world\nhold her\n\nwell done, hello there old world\n" * 4)
    return path


def experiment(folder: Path, out: str, **trainer: int) -> LanguageExperimentConfig:
    return LanguageExperimentConfig.model_validate(
        {
            "out": folder / out,
            "speech_model": folder / "speech",
            "model": SMALL,
            "data": {
                "train": [folder / "texts.txt"],
                "dev": [folder / "texts.txt"],
                "batch_tokens": 60,
                "max_tokens": 9,
            },
            "optimizer": {"lr": 0.01, "warmup_steps": 2, "schedule": "constant"},
            "trainer": {"max_steps": 14, "validate_every_steps": 7, "device": "cpu", **trainer},
        }
    )


def test_resumed_run_equals_an_uninterrupted_one(folder: Path) -> None:
    told: list[str] = []
    whole = train_language_model(experiment(folder, "whole"), told.append)
    found = [float(line.split()[4]) for line in told if line.startswith("step")]
    assert found[-1] < found[0] < 11
    done: list[tuple[float, float]] = []
    train_language_model(experiment(folder, "parted", max_steps=7), told.append)
    parted = train_language_model(experiment(folder, "parted"), told.append, lambda *counts: done.append(counts))
    assert done == [(step, 14) for step in range(8, 15)]
    curves = [
        load_state(path / "states" / "step-0000014.safetensors")["curve"] for path in (whole.parent, parted.parent)
    ]
    assert curves[0] == curves[1]
    assert [dev for _, _, dev in curves[0]] == pytest.approx(found, abs=5e-4)
    assert (parted.parent / "learning_curve.png").stat().st_size > 1000
    a, b = (load_language_model(path).model.state_dict() for path in (whole, parted))
    assert all(torch.equal(a[name], b[name]) for name in a)
    with pytest.raises(AsrError, match=r"holds a run with another configuration \(seed differ\)"):
        train_language_model(experiment(folder, "whole").model_copy(update={"seed": 1}), told.append)


def test_diverging_lm_training_ends_with_one_line_and_no_model(folder: Path) -> None:
    """Its loss is above 709 nats a token, beyond which the perplexity is no finite float."""
    told: list[str] = []
    config = experiment(folder, "diverging", validate_every_steps=14)
    fast = config.model_copy(update={"optimizer": config.optimizer.model_copy(update={"lr": 50.0})})
    with pytest.raises(AsrError, match=r"^no validation had a finite perplexity: lower optimizer\.lr, "):
        train_language_model(fast, told.append)
    assert told[-1] == "step 14: dev perplexity inf a token, best inf"
    assert not (folder / "diverging" / "model").exists()


@torch.no_grad()
def test_lm_takes_part_in_the_search_unless_its_weight_is_0(folder: Path) -> None:
    tokenizer = small_model().tokenizer
    settings = LanguageFolderConfig(kind="language_model", model=SMALL)
    save_model_folder(folder / "lm", LanguageFolder(settings, untrained("pre", tokenizer.vocab_size), tokenizer))
    options = {"beam_size": 3, "n_best": 3, "ctc_weight": 0.3}
    audio = noises(1.0, 0.5, 1.5)
    plain = Recognizer(small_model(**options)).decode(*pad_audio(audio))
    assert Recognizer(small_model(**options, lm=folder / "lm", lm_weight=0)).decode(*pad_audio(audio)) == plain
    recognizer = Recognizer(small_model(**options, lm=folder / "lm", lm_weight=0.5))
    fused = recognizer.decode(*pad_audio(audio))
    assert [h[0].tokens for h in fused] != [h[0].tokens for h in plain]
    model = load_language_model(folder / "lm").model
    for a, hypotheses in zip(audio, fused, strict=True):
        assert recognizer.decode(*pad_audio([a]))[0][0].tokens == hypotheses[0].tokens
        for h in hypotheses:
            text = [1, *h.tokens, *([] if h.truncated else [tokenizer.eos_id])]
            assert h.parts["lm"] == pytest.approx(-float(summed_loss(model, [text])[0]), abs=1e-3)


def test_unusable_language_models_are_refused(folder: Path) -> None:
    with pytest.raises(CheckpointError, match=r"no language model: .*'kind' is missing; unknown key 'model\.encoder'"):
        Recognizer(small_model(lm=folder / "speech"))
    with pytest.raises(CheckpointError, match=r"no language model .config.yaml is missing"):
        Recognizer(small_model(lm=folder))
    other = CharacterTokenizer.train(["hello xorld"])
    settings = LanguageFolderConfig(kind="language_model", model=SMALL)
    save_model_folder(folder / "other", LanguageFolder(settings, untrained("pre", other.vocab_size), other))
    with pytest.raises(ConfigError, match="was trained for other tokens than this model's"):
        Recognizer(small_model(lm=folder / "other"))
    config = folder / "other" / "config.yaml"
    config.write_text(config.read_text().replace("dim: 16", "dim: 60000"))
    with pytest.raises(CheckpointError, match=r"describes a larger model"):
        Recognizer(small_model(lm=folder / "other"))
    with pytest.raises(ConfigError, match="leave out lm_unit: word"):
        Recognizer(small_model(lm=folder / "other", lm_unit="word"))


def test_user_errors_of_lm_train_are_one_line(folder: Path) -> None:
    (folder / "run.yaml").write_text("trainer: {max_steps: 3}\n")
    done = asr("lm", "train", folder / "run.yaml")
    assert (done.status, len(done.err)) == (2, 1)
    assert "key 'out' is missing" in done.err[0]
    done = asr("lm", "train", folder / "none.yaml")
    assert (done.status, done.err) == (2, [f"asr: {folder}/none.yaml: no such file"])
    words = ["lm", "train", CONF / "prompts" / "lm-en.yaml", f"out={folder / 'none'}"]
    for change, says in (
        ("data.train=3", "lm-en.yaml: 'data.train': must be a list, got 3"),
        ("data=texts.txt", "lm-en.yaml: 'data': must be a section of keys, got texts.txt"),
        (f"speech_model={folder}/no/model", f"(config.yaml is missing); asr train with out={folder}/no makes it"),
        (f"speech_model={folder}/none", f"speech_model, whose tokens are taken: {folder}/none: no model folder"),
    ):
        done = asr(*words, change)
        assert (done.status, len(done.err)) == (2, 1)
        assert says in done.err[0]


def test_texts_can_be_one_file_or_a_list() -> None:
    path = CONF / "prompts" / "lm-en.yaml"
    config = read_config(LanguageExperimentConfig, path, ["data.train=a.txt", "data.dev=[b.txt, c.txt]"])
    assert config.data.train == (Path("a.txt"),)
    assert config.data.dev == (Path("b.txt"), Path("c.txt"))


def test_print_config_prints_and_does_not_train() -> None:
    done = asr("lm", "train", CONF / "prompts" / "lm-en.yaml", "out=here", "data.train=a.txt", "--print-config")
    assert (done.status, done.err) == (0, [])
    printed = parse_yaml(done.out, "printed")
    assert (printed["out"], printed["data"]["train"], printed["model"]["norm"]) == ("here", ["a.txt"], "pre")
    assert not Path("here").exists()


@pytest.mark.parametrize("path", sorted(CONF.rglob("lm-*.yaml")), ids=lambda path: path.name)
def test_every_lm_configuration_builds(path: Path) -> None:
    config = read_config(LanguageExperimentConfig, path)
    assert len(build_language_model(config.model, 30, 1).layers) == config.model.layers
