"""Every kind of decoder through the commands: train, resume, transcribe, evaluate; alone and in a batch."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from command import asr
from models import noises, small_model, sources
from synthetic import experiment, logged_steps, speech_data, untrained

from asr.checkpoint import load_model_folder, save_model_folder
from asr.config import AdaptConfig, ExperimentConfig
from asr.data.batch import pad_audio
from asr.errors import AsrError, CheckpointError, ConfigError
from asr.recognizer import Recognizer
from asr.training.start import starting_point
from asr.training.task import SpeechTask
from asr.transcript import Failure

LAYERS = {"layers": 1, "heads": 2, "feed_forward": 32}
SMALL: dict[str, dict[str, Any]] = {
    "none": {"kind": "none"},
    "transducer": {"kind": "transducer", "dim": 16, "joiner": 16},
    "mask_predict": {"kind": "mask_predict", **LAYERS},
    "mask_ctc": {"kind": "mask_ctc", **LAYERS},
}
STATELESS = {"kind": "transducer", "predictor": "convolution", "dim": 16, "joiner": 16}
BEAM = {"beam_size": 4, "n_best": 4, "length_bonus": 0.1}
SEARCHES: list[tuple[dict[str, Any], dict[str, Any]]] = [
    (SMALL["none"], {}),
    (SMALL["none"], BEAM),
    (SMALL["transducer"], {}),
    (SMALL["transducer"], BEAM),
    (SMALL["mask_predict"], {"iterations": 3}),
    (SMALL["mask_predict"], {"beam_size": 4, "n_best": 3, "length_penalty": 0.7}),
    (SMALL["mask_ctc"], {"threshold": 0.9, "iterations": 4}),
    (STATELESS, {"beam_size": 3, "max_symbols": 2}),
]
pytestmark = pytest.mark.filterwarnings("ignore:.*length cap")  # random models often reach it
KINDS = pytest.mark.parametrize("kind", SMALL)
# These decoders have no attention to guide, and not all keys of the synthetic experiment's decoder.
SHORT = (
    "loss.guided_attention.weight=0",
    "trainer.max_epochs=null",
    "trainer.validate_every_steps=2",
    "trainer.save_every_steps=2",
)


def overrides(kind: str, *others: str) -> list[str]:
    return [f"model.decoder={json.dumps(SMALL[kind])}", *SHORT, *others]


@pytest.fixture(scope="module")
def runs(config: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A finished run of each kind."""
    out = {kind: tmp_path_factory.mktemp(kind) / "run" for kind in SMALL}
    for kind, folder in out.items():
        done = asr("train", config, *overrides(kind, f"out={folder}", "trainer.max_steps=4"))
        assert done.status == 0, done.err
    return out


@KINDS
def test_resumed_run_equals_an_uninterrupted_one(
    kind: str, runs: dict[str, Path], config: Path, tmp_path: Path
) -> None:
    for steps in (2, 4):
        done = asr("train", config, *overrides(kind, f"out={tmp_path}", f"trainer.max_steps={steps}"))
        assert done.status == 0, done.err
    steps, whole = ([(s["loss"], s["ids"]) for s in logged_steps(out)] for out in (tmp_path, runs[kind]))
    assert steps == whole
    assert len(steps) == 4
    weights = Path("model") / "model.safetensors"
    assert (tmp_path / weights).read_bytes() == (runs[kind] / weights).read_bytes()
    assert (tmp_path / "hyp.jsonl").read_bytes() == (runs[kind] / "hyp.jsonl").read_bytes()


@KINDS
def test_trained_model_transcribes_and_evaluates(
    kind: str, runs: dict[str, Path], config: Path, tmp_path: Path
) -> None:
    model, audio = runs[kind] / "model", config.parent / "dev-0.wav"
    told = asr("transcribe", audio, "--model", model, "--format", "json", "--words", "--dtype", "float32")
    assert told.status == 0, told.err
    result = json.loads(told.out)
    heard = Recognizer(load_model_folder(model)).transcribe(audio)
    assert result["text"] == heard.text
    scored = asr("evaluate", config.parent / "dev.jsonl.gz", "--model", model, "--json", "--out", tmp_path)
    assert scored.status == 0, scored.err
    rows = [json.loads(line) for line in (tmp_path / "hyp.jsonl").read_text().splitlines()]
    assert {row["id"]: row["text"] for row in rows}["dev-0"] == heard.text
    assert (tmp_path / "hyp.jsonl").exists()


@KINDS
def test_model_folder_round_trip_is_exact_and_checks_sizes(kind: str, tmp_path: Path) -> None:
    parts = small_model(decoder=SMALL[kind])
    save_model_folder(tmp_path, parts)
    again = load_model_folder(tmp_path)
    assert again.config == parts.config
    expected, found = parts.model.state_dict(), again.model.state_dict()
    assert expected.keys() == found.keys()
    assert all(torch.equal(expected[name], found[name]) for name in expected)
    settings = tmp_path / "config.yaml"
    settings.write_text(settings.read_text().replace("dim: 32", "dim: 65536"))
    with pytest.raises(CheckpointError, match="describes a larger model"):
        load_model_folder(tmp_path)


@pytest.mark.parametrize(("decoder", "options"), SEARCHES)
@pytest.mark.parametrize("languages", [(), ("en", "es")])
def test_texts_are_the_same_alone_and_in_a_batch(
    decoder: dict[str, Any], options: dict[str, Any], languages: tuple[str, ...]
) -> None:
    recognizer = Recognizer(small_model(languages, decoder=decoder, **options))
    audio = noises(1.0, 0.5, 1.5, 0.1, 0.75, 0.001)
    spoken = ["es", "en"] * 3 if languages else [None] * 6
    together = recognizer.decode(*pad_audio(audio), spoken)
    assert len({hypotheses[0].tokens for hypotheses in together}) > 3
    special = {*recognizer.tokenizer.suppressed_ids, recognizer.tokenizer.eos_id}
    for waveform_N, language, hypotheses in zip(audio, spoken, together, strict=True):
        (alone,) = recognizer.decode(*pad_audio([waveform_N]), [language])
        assert [h.tokens for h in alone] == [h.tokens for h in hypotheses]
        assert [h.score for h in alone] == pytest.approx([h.score for h in hypotheses], abs=1e-4)
        assert len(hypotheses) <= options.get("n_best", 1)
        assert not special & {token for h in hypotheses for token in h.tokens}
        assert [h.score for h in hypotheses] == sorted((h.score for h in hypotheses), reverse=True)


@KINDS
def test_loss_is_the_same_alone_and_in_a_batch(kind: str, config: Path) -> None:
    settings = experiment(config, *overrides(kind, "trainer.max_steps=1"))
    parts = untrained(settings)
    data, task = speech_data(settings, parts), SpeechTask(parts, settings)
    task.eval()
    cuts = data.train_cuts[:6]
    together = task.criteria(task.dev_pass(data.dev_batch(cuts)))
    for b, cut in enumerate(cuts):
        for name, value_B in task.criteria(task.dev_pass(data.dev_batch([cut]))).items():
            assert value_B[0] > 0
            torch.testing.assert_close(value_B[0], together[name][b], atol=1e-4, rtol=1e-5)


@KINDS
@pytest.mark.parametrize("precision", ["bfloat16", "int8"])
def test_low_precision_works_for_every_kind(kind: str, precision: Any) -> None:
    recognizer = Recognizer(small_model(decoder=SMALL[kind]), precision=precision)
    found = recognizer.decode(*pad_audio(noises(1.0, 0.4, 0.7)))
    assert all(hypotheses[0].tokens for hypotheses in found)
    assert recognizer.decoder.footprint.second > 0


@KINDS
def test_run_can_start_from_a_trained_model(kind: str, runs: dict[str, Path], config: Path, tmp_path: Path) -> None:
    settings = experiment(config, *overrides(kind, f"out={tmp_path}", "trainer.max_steps=1"))
    brought = {"features", "model", "tokenizer"}
    plain = settings.model_dump(exclude=brought) | {"init": runs[kind] / "model", "adapt": AdaptConfig(dropout=0.3)}
    parts = starting_point(ExperimentConfig(**plain))
    assert parts.config.model.encoder.dropout == 0.3
    assert getattr(parts.config.model.decoder, "dropout", 0.3) == 0.3
    assert parts.config.model.decoder.kind == kind
    assert kind != "none" or "dropout" not in parts.config.model.decoder.model_dump()


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        (["model.decoder={kind: none}", "model.ctc=false"], "decoder.kind=none needs a CTC head"),
        (["model.decoder={kind: mask_ctc}", "model.ctc=false"], "decoder.kind=mask_ctc needs a CTC head"),
        (["model.decoder={kind: none}", "loss.ctc_weight=0"], "loss.ctc_weight=0 would not train the CTC head"),
        (["model.decoder={kind: mask_ctc}", "loss.ctc_weight=0"], "loss.ctc_weight=0 would not train the CTC head"),
        (["loss.ctc_weight=1"], "loss.ctc_weight=1 would not train the decoder"),
        (["model.decoder={kind: transducer}", "loss.ctc_weight=1"], "loss.ctc_weight=1 would not train the decoder"),
        (["loss.length_weight=0.2"], "loss.length_weight is for model.decoder.kind=mask_predict"),
        (["model.decoder.position=rotary", "model.decoder.clip=8"], "clip is for position=shaw"),
        (["model.decoder={kind: mask_predict, heads: 3}"], "encoder.dim=16 must be a multiple of decoder.heads=3"),
        (
            ["model.decoder={kind: mask_predict, alignment_heads: []}"],
            "'model.decoder.alignment_heads': kind mask_predict has no alignment_heads",
        ),
        (
            ["model.decoder={kind: none}", "loss.guided_attention.weight=1"],
            "guided_attention is for .*kind=attention",
        ),
        (["model.decoder={kind: none, layers: 3}"], "'model.decoder.layers': kind none has no layers"),
        (
            ["model.decoder={kind: nine}"],
            "'model.decoder': there is no kind 'nine'; there are 'attention', 'none', 'tr",
        ),
        (
            ["model.decoder={kind: transducer}", "loss.guided_attention.weight=1"],
            "guided_attention is for .*kind=att",
        ),
        (["model.decoder={kind: transducer, context: 3}"], "context is for predictor=convolution"),
        (["model.decoder={kind: transducer, predictor: convolution, layers: 2}"], "layers is for predictor=lstm"),
    ],
)
def test_inconsistent_configuration_is_refused_in_one_line(config: Path, changes: list[str], expected: str) -> None:
    with pytest.raises(ConfigError, match=expected) as caught:
        experiment(config, "loss.guided_attention.weight=0", *changes)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("kind", "options", "expected"),
    [
        (
            "none",
            {"ctc_weight": 0.5},
            "decode.ctc_weight (--ctc-weight) is for decoders of kind attention; this model's is",
        ),
        ("none", {"length_penalty": 0.5}, "decode.length_penalty is for"),
        ("none", {"guards": {"enabled": True}}, "decode.guards (--guards) is for decoders of kind attention"),
        ("none", {"max_symbols": 2}, "decode.max_symbols is for decoders of kind transducer; this model's is none"),
        ("transducer", {"ctc_weight": 0.5}, "decode.ctc_weight (--ctc-weight) is for decoders of kind attention"),
        (
            "mask_ctc",
            {"beam_size": 2},
            "decode.beam_size (--beam-size) is for decoders of kind attention or none or",
        ),
        ("mask_predict", {"threshold": 0.5}, "decode.threshold is for decoders of kind mask_ctc"),
        ("transducer", {"iterations": 3}, "decode.iterations is for decoders of kind mask_predict or mask_ctc"),
        (
            "mask_predict",
            {"phrases": Path("list.txt")},
            "decode.phrases (--hotwords) is for decoders of kind attention or none or transducer",
        ),
    ],
)
def test_decode_options_of_other_kinds_are_refused(kind: str, options: dict[str, Any], expected: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(expected)) as caught:
        Recognizer(small_model(decoder=SMALL[kind], **options))
    assert "\n" not in str(caught.value)


def test_missing_language_is_refused_where_it_matters() -> None:
    audio_BN, len_B = pad_audio(noises(1.0))
    for kind in SMALL:
        recognizer = Recognizer(small_model(["en", "es"], decoder=SMALL[kind]))
        if kind == "none":  # CTC does not use the language
            assert recognizer.decode(audio_BN, len_B) == recognizer.decode(audio_BN, len_B, ["es"])
            continue
        with pytest.raises(AsrError, match="cannot detect the language: give it, one of en, es"):
            recognizer.decode(audio_BN, len_B)
        (failed,) = recognizer.transcribe_sources(sources(noises(1.0)))
        assert failed == Failure("0", "0: this model cannot detect the language: give it, one of en, es")
        alone = Recognizer(small_model(["en"], decoder=SMALL[kind]))
        assert alone.decode(audio_BN, len_B) == alone.decode(audio_BN, len_B, ["en"])


def test_transducer_output_depends_on_the_language() -> None:
    recognizer = Recognizer(small_model(["en", "es"], decoder=SMALL["transducer"]))
    audio_BN, len_B = pad_audio(noises(1.0))
    assert recognizer.decode(audio_BN, len_B, ["en"]) != recognizer.decode(audio_BN, len_B, ["es"])


@pytest.mark.parametrize(
    ("kind", "ctc"),
    [("none", True), ("transducer", True), ("transducer", False), ("mask_predict", True), ("mask_ctc", True)],
)
def test_word_times_are_ordered_and_do_not_depend_on_the_batch(kind: str, ctc: bool) -> None:
    recognizer = Recognizer(small_model(decoder=SMALL[kind], ctc=ctc))
    audio = noises(1.0, 0.5, 1.5, 0.04)
    together = recognizer.decoder(*pad_audio(audio), [None] * 4, words=True)
    assert any(found.words for found in together)
    for waveform_N, found in zip(audio, together, strict=True):
        (alone,) = recognizer.decoder(*pad_audio([waveform_N]), [None], words=True)
        assert [(w.text, w.start_s, w.end_s) for w in alone.words] == [
            (w.text, w.start_s, w.end_s) for w in found.words
        ]
        assert [w.probability for w in alone.words] == pytest.approx([w.probability for w in found.words], abs=1e-5)
        assert "".join(word.text for word in found.words).strip() == recognizer.decoder.text(found.hypotheses[0])
        times = [t for word in found.words for t in (word.start_s, word.end_s)]
        assert times == sorted(times)
        assert all(0 <= t <= len(waveform_N) / 8000 for t in times)


def test_mask_predict_word_times_need_a_ctc_head() -> None:
    recognizer = Recognizer(small_model(decoder=SMALL["mask_predict"], ctc=False))
    with pytest.raises(ConfigError, match="decoders of kind mask_predict need a CTC head for word times"):
        recognizer.decoder(*pad_audio(noises(1.0)), [None], words=True)


def test_prompts_are_refused_by_every_kind() -> None:
    for kind in SMALL:
        with pytest.raises(AsrError, match="takes no prompt"):
            Recognizer(small_model(decoder=SMALL[kind])).decoder.previous("hello")
