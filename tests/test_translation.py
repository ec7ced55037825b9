"""Speech translation: training on several tasks, scores on dev, output, and initialisation from another model."""

from __future__ import annotations

import io
import itertools
import json
from pathlib import Path
from types import SimpleNamespace

import pytest
import sacrebleu
import torch
import yaml
from command import asr
from rich.console import Console
from synthetic import clip, experiment, experiment_file, manifest, speech_data, translated, white

from asr.align import forced_path
from asr.checkpoint import load_model_folder
from asr.config import DecodeConfig, to_yaml, validate
from asr.data.batch import collate
from asr.data.corpus import Streamed
from asr.data.cuts import read_cuts, text_of
from asr.data.examples import Examples
from asr.data.sources import open_source
from asr.data.usable import Usable
from asr.errors import ConfigError, DataError
from asr.evaluate import evaluate
from asr.metrics import ErrorRate
from asr.recognizer import Recognizer
from asr.scoring import Columns, score
from asr.tokenizer import CharacterTokenizer
from asr.training.callbacks import KeepStates
from asr.training.initial import assembled
from asr.training.run import train
from asr.training.task import SpeechTask
from asr.transcript import Transcript
from asr.tuning import tune

pytestmark = pytest.mark.filterwarnings("ignore:.*length cap")

GERMAN = {"one": "eins", "two": "zwei", "three": "drei"}
BOTH = "data.tasks=[transcribe, translate:de]"
METRICS = {"bleu": sacrebleu.BLEU, "chrf": sacrebleu.CHRF}


def split(folder: Path, name: str, count: int) -> Path:
    """Write clips of noise labelled with one word and its German translation, and their manifest."""
    words = list(GERMAN)
    cuts = [clip(folder / f"{name}-{i}.wav", white(4000 + 400 * i, i), words[i % 3], "en") for i in range(count)]
    return manifest(folder / f"{name}.jsonl.gz", [translated(c, {"de": GERMAN[text_of(c)]}) for c in cuts])


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The YAML of a small experiment on such clips."""
    folder = tmp_path_factory.mktemp("spoken")
    path = experiment_file(folder, train=1, dev=1)
    split(folder, "train", 9)
    split(folder, "dev", 3)
    return path


def trained(config: Path, out: Path, *overrides: str) -> Path:
    made = experiment(config, f"out={out}", "trainer.plot_utterances=1", *overrides)
    return train(made, Console(file=io.StringIO()))


def test_stream_has_each_cut_once_per_task_with_copies_spread_apart(config: Path, tmp_path: Path) -> None:
    path = split(tmp_path, "many", 40)
    streamed = experiment(config, f"data.train={path}", BOTH, "data.stream=true", "data.shuffle_buffer=40")
    tokenizer = CharacterTokenizer.train([*GERMAN, *GERMAN.values()], (), streamed.data.tasks)
    usable = Usable(streamed, Examples(streamed, tokenizer, 8000), 100, 30.0, None)
    ids = [c.id for c in Streamed(streamed, usable, open_source(path)).epoch(0).cuts]
    assert sorted(ids) == sorted(f"many-{i}{task}" for i in range(40) for task in ("", ">de"))
    neighbours = sum(a.partition(">")[0] == b.partition(">")[0] for a, b in itertools.pairwise(ids))
    assert neighbours < 10


# ---- training ----------------------------------------------------------------------------------------------------


def test_batch_has_both_texts_and_trains_ctc_on_the_transcript(config: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    folder = trained(config, out, BOTH, "trainer.max_steps=1", "tokenizer.languages=[en]", "augment.join=0")
    parts = load_model_folder(folder)
    made = experiment(config, f"out={out}", BOTH)
    data = speech_data(made, parts)
    assert len(data.train_cuts) == 18
    both = {c.id: data.examples.plain(c) for c in data.train_cuts}
    plain, german = both["train-1"], both["train-1>de"]
    tokenizer = parts.tokenizer
    assert plain.tokens == [*tokenizer.prefix("en", "transcribe"), *tokenizer.encode("two"), tokenizer.eos_id]
    assert german.tokens == [*tokenizer.prefix("en", "translate:de"), *tokenizer.encode("zwei"), tokenizer.eos_id]
    assert plain.spoken == german.spoken == tokenizer.encode("two")
    batch = collate([plain, german])
    task = SpeechTask(parts, made).eval()
    found = task.criteria(task.dev_pass(batch))
    assert found["ctc"][0].item() == pytest.approx(found["ctc"][1].item())  # the same audio and words
    assert found["ce"][0].item() != pytest.approx(found["ce"][1].item())
    calls: list[object] = []
    task.model.encoder.register_forward_hook(lambda *call: calls.append(call))
    with torch.no_grad():
        task.validation_step(batch, 0)
    assert len(calls) == 1
    best = task.recognizer.decode(batch.audio_BN, batch.audio_len_B, batch.languages, batch.tasks)
    assert len(calls) > 1
    texts = {id: tokenizer.decode(list(each[0].tokens)) for id, each in zip(batch.ids, best, strict=True)}
    assert {id: result.hypothesis for id, result in task.dev_results.items()} == texts


@pytest.mark.parametrize("measure", ["chrf", "bleu"])
def test_dev_is_scored_by_task_and_the_best_state_chosen_by(measure: str, config: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    trained(config, out, BOTH, "trainer.max_steps=4", "trainer.validate_every_steps=2", f"trainer.choose_by={measure}")
    rows = [json.loads(line) for line in (out / "hyp.jsonl").read_text().splitlines()]
    german = [row for row in rows if row.get("task") == "translate:de"]
    assert [row["id"] for row in german] == ["dev-0>de", "dev-1>de", "dev-2>de"]
    assert [(row["reference"], row["language"]) for row in german] == [("eins", "de"), ("zwei", "de"), ("drei", "de")]
    told = json.loads((out / "run.json").read_text())
    texts = [row["text"] for row in german], [[row["reference"] for row in german]]
    expected = {name: metric().corpus_score(*texts).score for name, metric in METRICS.items()}
    assert told["chosen_by"] == measure
    assert max(told["best_states"].values()) == pytest.approx(expected[measure], rel=1e-5)
    assert next(iter(told["best_states"].values())) == max(told["best_states"].values())
    scores = told["dev_of_best"]
    for name, score_of_all in expected.items():
        assert scores["translate:de"]["metrics"][name]["score"] == pytest.approx(score_of_all)
    assert scores["translate:de"]["metrics"]["bleu"]["signature"].startswith("nrefs:1|case:mixed|")
    assert scores["transcribe"]["metrics"].keys() == {"wer", "cer"}


def test_choose_by_must_be_a_metric_of_the_tasks(config: Path) -> None:
    assert experiment(config).chosen_by == "wer"
    assert experiment(config, BOTH).chosen_by == "wer"
    assert experiment(config, "data.tasks=[translate:de]").chosen_by == "bleu"
    for overrides, says in (
        (["trainer.choose_by=bleu"], "choose_by=bleu is for data.tasks with a translation"),
        (["data.tasks=[translate:de]", "trainer.choose_by=wer"], "choose_by=wer is for data.tasks with transcribe"),
        (["data.tasks=[translate]"], "data.tasks.0"),
        (["data.tasks=[]"], "data.tasks"),
        (["data.tasks=[transcribe, transcribe]"], "a task is given twice"),
        (
            [BOTH, "model.decoder={kind: none}", "loss.guided_attention.weight=0"],
            "a translation does not follow the order of the speech",
        ),
        (["loss.ctc_weight=0"], "would leave a CTC head that knows nothing: set model.ctc=false, too"),
    ):
        with pytest.raises(ConfigError, match=says):
            experiment(config, *overrides)


def test_best_states_have_the_highest_bleu_or_lowest_wer(config: Path, tmp_path: Path) -> None:
    class Trainer:
        is_global_zero, should_stop, global_step = False, False, 0
        strategy = SimpleNamespace(lightning_module_state_dict=dict)
        callback_metrics: dict[str, torch.Tensor]

        def save_checkpoint(self, path: Path) -> None: ...

    found = {}
    for measure in ("wer", "bleu"):
        keeper = KeepStates(tmp_path, experiment(config, "trainer.keep_best=2").trainer, measure)  # type: ignore[arg-type]
        trainer = Trainer()
        for step, value in enumerate((3.0, 1.0, 2.0, 3.0, 1.0)):
            trainer.global_step, trainer.callback_metrics = step, {f"dev_{measure}": torch.tensor(value)}
            keeper.on_validation_end(trainer, None)  # type: ignore[arg-type]
        found[measure] = keeper.best
    assert list(found["wer"].items()) == [(4, 1.0), (1, 1.0)]  # the later of equal ones
    assert list(found["bleu"].items()) == [(3, 3.0), (0, 3.0)]


def test_dev_without_the_choose_by_metric_is_refused(config: Path, tmp_path: Path) -> None:
    dev = manifest(tmp_path / "dev.jsonl", [clip(tmp_path / "a.wav", white(8000), "one")])
    alone = f"^{dev}: its usable cuts are only for transcribe, which has no score bleu: take another data.dev or "
    with pytest.raises(DataError, match=alone):
        trained(config, tmp_path / "run", f"data.dev={dev}", BOTH, "trainer.choose_by=bleu")


def test_cut_whose_text_cannot_be_normalized_is_left_out_and_listed(config: Path, tmp_path: Path) -> None:
    cuts = [*read_cuts(config.parent / "train.jsonl.gz"), clip(tmp_path / "a.wav", white(8000), "line 3", "xx")]
    train = manifest(tmp_path / "train.jsonl", cuts)
    trained(config, tmp_path / "run", f"data.train={train}", "normalizer=spoken", "trainer.max_steps=1")
    (line,) = (tmp_path / "run" / "dropped.tsv").read_text().splitlines()
    assert line.startswith("a\tdigits cannot be spelled out")


def test_cuts_without_translation_or_transcript_are_listed(config: Path, tmp_path: Path) -> None:
    cuts = [
        translated(clip(tmp_path / "a.wav", white(8000), "one"), {"de": "eins"}),
        translated(clip(tmp_path / "b.wav", white(8000), "one"), {"fr": "un"}),
        translated(clip(tmp_path / "c.wav", white(8000), ""), {"de": "eins"}),
    ]
    path = manifest(tmp_path / "cuts.jsonl", cuts)
    only = "data.tasks=[translate:de]"
    out = tmp_path / "run"
    trained(config, out, f"data.train={path}", only, "trainer.max_steps=1")
    assert (out / "dropped.tsv").read_text().splitlines() == [
        "b>de\tno translation into de",
        "c>de\tnothing tells what is said, which CTC needs: train without it (loss.ctc_weight=0)",
    ]
    without = tmp_path / "without"
    trained(config, without, f"data.train={path}", only, "trainer.max_steps=1", "loss.ctc_weight=0", "model.ctc=false")
    assert (without / "dropped.tsv").read_text() == "b>de\tno translation into de\n"


# ---- output -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def folder(config: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of both tasks, transcription and translation into German."""
    options = BOTH, "trainer.max_steps=2", "decode.ctc_weight=0.5", "decode.beam_size=2"
    return trained(config, tmp_path_factory.mktemp("both") / "run", *options)


def test_ctc_is_not_used_in_the_search_for_a_translation(folder: Path, config: Path) -> None:
    recognizer = Recognizer(load_model_folder(folder))
    audio_BN, len_B = torch.randn(3, 8000), torch.tensor([8000, 6000, 4000])
    mixed = recognizer.decode(audio_BN, len_B, None, ["translate:de", "transcribe", None])
    alone = [
        recognizer.decode(audio_BN[[i], :n], len_B[[i]], None, [task])[0]
        for i, (n, task) in enumerate(zip(len_B.tolist(), ["translate:de", "transcribe", None], strict=True))
    ]
    assert [h[0].tokens for h in mixed] == [h[0].tokens for h in alone]
    assert ["ctc" in h[0].parts for h in mixed] == [False, True, True]


def test_words_of_a_translation_are_timed_by_attention_only(
    folder: Path, config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recognizer = Recognizer(load_model_folder(folder), DecodeConfig(ctc_weight=0.5, beam_size=2))
    aligned: list[int] = []
    monkeypatch.setattr("asr.align.forced_path", lambda *a: aligned.append(1) or forced_path(*a))
    heard = recognizer.files([config.parent / "dev-0.wav", config.parent / "dev-1.wav"])
    for task, by_ctc in (("transcribe", True), ("translate:de", False), ("transcribe", True)):
        aligned.clear()
        found = list(recognizer.transcribe_sources(heard, language="en", task=task, words=True))
        assert all(isinstance(one, Transcript) and one.segments[0].words for one in found)
        assert bool(aligned) is by_ctc


def test_evaluate_scores_against_the_translations_in_the_cuts(folder: Path, config: Path, tmp_path: Path) -> None:
    dev = config.parent / "dev.jsonl.gz"
    found = evaluate(Recognizer(load_model_folder(folder)), dev, tmp_path, task="translate")
    rows = [json.loads(line) for line in (tmp_path / "hyp.jsonl").read_text().splitlines()]
    assert [(row["id"], row["reference"], row["task"]) for row in rows] == [
        (f"dev-{i}", word, "translate:de") for i, word in enumerate(GERMAN.values())
    ]
    expected = sacrebleu.CHRF().corpus_score([row["text"] for row in rows], [list(GERMAN.values())])
    assert found.report.values["chrf"] == pytest.approx(expected.score)
    assert found.report.metrics == ("bleu", "chrf")


def test_evaluate_reports_cuts_without_the_translation(folder: Path, config: Path, tmp_path: Path) -> None:
    dev, lacking = config.parent / "dev.jsonl.gz", [clip(tmp_path / f"{i}.wav", white(8000)) for i in range(5)]
    some = manifest(tmp_path / "some.jsonl", [*read_cuts(dev), *lacking])
    arguments = ["evaluate", str(some), "--task", "translate:de", "--model", str(folder), "--out", str(tmp_path)]
    done = asr(*arguments)
    assert done.status == 0, done.err
    assert done.err[:4] == [
        *(f"asr: {some}: cut {i} is left out: no translation into de" for i in range(3)),
        f"asr: {some}: so are 2 more, which {tmp_path}/evaluation.jsonl names",
    ]
    told = json.loads((tmp_path / "evaluation.jsonl").read_text())
    assert told["left_out"] == {str(i): "no translation into de" for i in range(5)}
    assert told["utterances"] == len(list(read_cuts(dev)))
    none = manifest(tmp_path / "none.jsonl", lacking)
    with pytest.raises(DataError, match=rf"^{none}: nothing to score for task translate:de: cut 0: no translation"):
        evaluate(Recognizer(load_model_folder(folder)), none, tmp_path, task="translate:de")


def test_command_line_translates(folder: Path, config: Path, tmp_path: Path) -> None:
    audio = str(config.parent / "dev-0.wav")
    done = asr("transcribe", audio, "--task", "translate", "--language", "en", "--model", str(folder))
    assert done.status == 0, done.err
    done = asr("transcribe", audio, "--task", "translate:fr", "--model", str(folder))
    assert done.status != 0
    assert done.err == ["asr: this model has no task 'translate:fr': it has transcribe, translate:de"]
    done = asr(
        "evaluate",
        str(config.parent / "dev.jsonl.gz"),
        "--task",
        "translate",
        "--model",
        str(folder),
        "--out",
        str(tmp_path),
    )
    assert done.status == 0, done.err
    assert "BLEU" in done.out
    assert "chrF" in done.out
    assert "nrefs:1" in done.out


def test_decoding_options_are_tuned_by_translation_metrics(folder: Path, config: Path, tmp_path: Path) -> None:
    dev = config.parent / "dev.jsonl.gz"
    some = manifest(tmp_path / "some.jsonl", [*read_cuts(dev), clip(tmp_path / "lacking.wav", white(8000))])
    recognizer = Recognizer(load_model_folder(folder))
    found = tune(recognizer, some, {"beam_size": [1.0, 3.0]}, task="translate")
    for each in found.tried:
        options = validate(DecodeConfig, {**recognizer.options.model_dump(), **each.setting}, "test")
        own = evaluate(Recognizer(load_model_folder(folder), options), dev, tmp_path, task="translate")
        assert each.report.values == own.report.values
    assert [dropped.id for dropped in found.left_out] == ["lacking"]
    arguments = ["tune", str(some), "--model", str(folder), "--task", "translate", "--grid"]
    for metric, words, shown in (("bleu", [], "BLEU"), ("chrf", ["--metric", "chrf"], "chrF")):
        done = asr(*arguments, "beam_size=1,3", *words)
        assert done.status == 0, done.err
        assert done.out.splitlines()[0].split()[:2] == ["beam_size", "BLEU"]
        best = max(found.tried, key=lambda each: each.report.values[metric])
        assert done.out.splitlines()[-1] == f"most {shown}: beam_size={best.setting['beam_size']:g}"
    assert done.err[0] == f"asr: {some}: cut lacking is left out: no translation into de"
    for words, says in (
        (["ctc_weight=0,0.5"], "--grid ctc_weight=...: CTC, which spells what is said, has no part in translate:de"),
        (["beam_size=1", "--metric", "wer"], "--metric wer: this task is measured by bleu and chrf"),
    ):
        done = asr(*arguments, *words)
        assert (done.status, done.out, done.err) == (2, "", [f"asr: {says}"])


# ---- init --------------------------------------------------------------------------------------------------------


def test_translation_model_can_be_initialized_from_an_encoder(folder: Path, config: Path, tmp_path: Path) -> None:
    before = load_model_folder(folder)
    init = f"init={{from: {folder}, parts: [encoder]}}"
    text = "".join(line for line in config.read_text().splitlines(keepends=True) if not line.startswith("features"))
    lines = text.splitlines(keepends=True)
    (tmp_path / "run.yaml").write_text("".join(line for line in lines if "encoder:" not in line))
    made = experiment(tmp_path / "run.yaml", f"out={tmp_path / 'run'}", init, "data.tasks=[translate:de]")
    after = load_model_folder(train(made, Console(file=io.StringIO()))).config
    assert (after.features, after.model.encoder) == (before.config.features, before.config.model.encoder)
    tokenizer = load_model_folder(tmp_path / "run" / "model").tokenizer
    assert tokenizer.tasks == ("translate:de",)
    assert made.init is not None
    start = assembled(made, made.init, tokenizer)
    old, new = before.model.state_dict(), start.model.state_dict()
    for name in new:
        same = new[name].shape == old[name].shape and torch.equal(new[name], old[name])
        if name.startswith(("encoder.", "front_end.")):
            assert same, name
        elif name.startswith("decoder.layers.0.feed_forward.") and name.endswith("weight"):
            assert not same, name
    assert yaml.safe_load(to_yaml(made))["model"].keys() == {"decoder", "ctc"}
    with pytest.raises(ConfigError, match=r"init brings its own features, model\.encoder: leave out"):
        experiment(config, init)


def test_initialized_decoder_keeps_the_weights_of_shared_tokens(folder: Path, config: Path, tmp_path: Path) -> None:
    before = load_model_folder(folder)
    init = f"init={{from: {folder}, parts: [encoder, decoder, ctc]}}"
    path = tmp_path / "run.yaml"
    path.write_text(to_yaml(experiment(config, f"out={tmp_path / 'run'}", "data.tasks=[translate:de]")))
    tree = {"features", "model"}
    found = {key: value for key, value in yaml.safe_load(path.read_text()).items() if key not in tree}
    path.write_text(yaml.safe_dump(found))
    made = experiment(path, init)
    tokenizer = load_model_folder(trained(path, tmp_path / "run", init, "trainer.max_steps=1")).tokenizer
    assert made.init is not None
    start = assembled(made, made.init, tokenizer)
    names = before.tokenizer.names
    shared = [(names.index(name), i) for i, name in enumerate(tokenizer.names) if name in names]
    assert 4 < len(shared) < len(names)
    old, new = before.model.state_dict(), start.model.state_dict()
    for name in ("decoder.embedding.weight", "ctc.output.weight", "ctc.output.bias"):
        for was, now in shared:
            assert torch.equal(new[name][now], old[name][was]), name
    for name in new:
        if new[name].shape == old[name].shape:
            assert torch.equal(new[name], old[name]), name


def test_init_from_a_whole_model_requires_that_it_has_the_tasks(folder: Path, config: Path, tmp_path: Path) -> None:
    lines = config.read_text().splitlines(keepends=True)
    path = tmp_path / "run.yaml"
    path.write_text(
        "".join(line for line in lines if not line.startswith(("features", "model", "  encoder", "  decoder")))
    )
    with pytest.raises(
        ConfigError, match=r"has no task 'translate:fr': it has transcribe, translate:de; take parts of it"
    ):
        train(experiment(path, f"init={folder}", "data.tasks=[translate:fr]", f"out={tmp_path}"), Console(quiet=True))
    with pytest.raises(ConfigError, match="decoder and ctc only work with their own encoder"):
        experiment(path, f"init={{from: {folder}, parts: [decoder]}}")
    with pytest.raises(ConfigError, match=r"unknown key .init\.form.; did you mean .init\.from."):
        experiment(path, f"init={{form: {folder}}}")


# ---- asr score ---------------------------------------------------------------------------------------------------


def test_file_is_scored_against_the_translations_in_cuts(config: Path, tmp_path: Path) -> None:
    dev = config.parent / "dev.jsonl.gz"
    (tmp_path / "hyp.jsonl").write_text(
        "".join(json.dumps({"id": f"dev-{i}", "text": text}) + "\n" for i, text in enumerate(("eins", "zwo", "drei")))
    )
    report = score(dev, tmp_path / "hyp.jsonl", columns=(Columns(text="translations.de"), Columns()), metrics=["wer"])
    assert report.rates["wer"] == ErrorRate(hits=2, substitutions=1)
    done = asr("score", dev, tmp_path / "hyp.jsonl", "--ref-column", "translations.fr")
    assert (done.status, done.err) == (2, ["asr: cut 'dev-0' has no translation into fr"])
    done = asr("score", dev, tmp_path / "hyp.jsonl", "--ref-column", "translations.de", "--json")
    assert list(json.loads(done.out)["metrics"]) == ["bleu", "chrf"]
    (tmp_path / "zh.txt").write_text("a 我们在这里\n")
    scored = [
        score(tmp_path / "zh.txt", tmp_path / "zh.txt", metrics=["bleu"], language=code).translation["bleu"].signature
        for code in ("zh-TW", "zh_TW", "ZH")
    ]
    assert all("tok:zh" in signature for signature in scored)
