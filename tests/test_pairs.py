"""Every pair of methods builds, takes an optimizer step and decodes, or is refused with a one-line reason; and runs
with all parts resume exactly.
"""

from __future__ import annotations

import functools
import io
import math
import operator
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from synthetic import WORDS, clip, experiment, experiment_file, speech_data, untrained, white
from torch import Tensor

from asr.checkpoint import load_state
from asr.config import ExperimentConfig
from asr.config.reading import parse_yaml
from asr.data.batch import Batch
from asr.errors import ConfigError
from asr.training.run import train
from asr.training.states import states_in
from asr.training.task import SpeechTask

pytestmark = pytest.mark.filterwarnings("ignore:.*length cap")
_LAYERS = "layers: 1, heads: 2, feed_forward: 32, dropout: 0.0"
_BASE = (
    "loss.guided_attention={weight: 0}",
    "decode.max_tokens_per_s=4",
    "augment.join=0",
    f"model.decoder={{{_LAYERS}}}",
)
# The values of one key are alternatives, so they are not paired with each other.  FOLDER is that of the experiment.
METHODS: dict[str, tuple[str, ...]] = {
    "model.encoder.norm": ("post",),
    "model.decoder.norm": ("post",),
    "model.encoder.normalization": ("rms", "batch", "power"),
    "model.decoder.normalization": ("rms", "batch", "power"),
    "model.encoder.layer": ("conformer", "lstm"),
    "model.encoder.position": ("none", "learned", "shaw", "transformer_xl", "rotary"),
    "model.decoder.position": ("none", "sinusoidal", "shaw", "transformer_xl", "rotary"),
    "model.encoder.score": ("additive",),
    "model.decoder.score": ("additive",),
    "model.encoder.attention_dropout": ("0.1",),
    "model.decoder.attention_dropout": ("0.1",),
    "model.encoder.window": ("{left: 4, right: 2}",),
    "model.encoder.chunk": ("{frames: 4, left: 1}",),
    "model.encoder.subsampling": ("{kind: conv2d, channels: 4}", "{kind: glu}", "{factor: 2}", "{factor: 8}"),
    "model.decoder": (
        "{kind: none}",
        "{kind: transducer, dim: 8, joiner: 8}",
        "{kind: transducer, predictor: convolution, dim: 8, joiner: 8}",
        f"{{kind: mask_predict, {_LAYERS}}}",
        f"{{kind: mask_ctc, {_LAYERS}}}",
    ),
    "model.decoder.pointer": ("{}",),
    "loss.ctc_weight": ("0",),
    "loss.label_smoothing": ("0",),
    "loss.guided_attention": ("{weight: 1}",),
    "loss.scheduled_sampling": ("{share: 0.5, schedule: constant}",),
    "loss.minimum_error": (
        "{kind: n_best, weight: 0.1, n_best: 2, metric: cer}",
        "{kind: n_best, weight: 0.1, n_best: 2, ctc_weight: 0.5}",
        "{kind: self_critical, weight: 0.1, n_best: 2, metric: bleu}",
    ),
    "loss.r_drop": ("1",),
    "loss.cr_ctc": ("0.1",),
    "augment.token_noise": ("0.1",),
    "augment.noise": ("FOLDER/noise",),
    "tokenizer.kind": ("bpe",),
    "optimizer.kind": ("sgd", "adagrad", "rmsprop", "adam"),
    "optimizer.schedule": ("constant", "plateau", "cosine"),
    "decode.beam_size": ("3",),
    "decode.ctc_weight": ("0.5",),
    "decode.length_bonus": ("0.2",),
    "decode.lm": ("FOLDER/lm.arpa",),
    "decode.phrases": ("FOLDER/phrases.txt",),
    "decode.top_p": ("0.9",),
}
# What else goes with some choices.
WITH: dict[tuple[str, str], str] = {
    ("model.decoder.pointer", "{}"): "data.phrases={rare_below: 1000, distractors: [0, 3]}",
    ("loss.ctc_weight", "0"): "model.ctc=false",
    ("augment.noise", "FOLDER/noise"): "augment.noise_probability=1",
    ("tokenizer.kind", "bpe"): "tokenizer.vocab_size=24",
    ("decode.lm", "FOLDER/lm.arpa"): "decode.lm_unit=word",
    ("decode.top_p", "0.9"): "decode.temperature=0.7",
}
_NGRAMS = f"\\data\\\nngram 1={3 + len(WORDS)}\n\n\\1-grams:\n-99 <s>\n-1 </s>\n-2 <unk>\n%s\n\\end\\\n"
CHOICES = [(key, value) for key, values in METHODS.items() for value in values]


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("corpus")
    (folder / "noise").mkdir()
    clip(folder / "noise" / "noise.wav", white(4000))
    (folder / "lm.arpa").write_text(_NGRAMS % "\n".join(f"-0.8 {word}" for word in WORDS))
    (folder / "phrases.txt").write_text("five\ntwo three\n")
    return experiment_file(folder, train=4, dev=1)


@pytest.fixture(scope="module")
def batch(path: Path) -> Batch:
    config = experiment(path, *_BASE)
    data = speech_data(config, untrained(config))
    return data.dev_batch(list(data.train_cuts)[:2])


def configured(path: Path, *choices: tuple[str, str], others: tuple[str, ...] = ()) -> ExperimentConfig:
    """Apply choices, whole sections before their keys, and what goes with them."""
    told = {key: value.replace("FOLDER", str(path.parent)) for key, value in sorted(choices)}
    more = [WITH[choice] for choice in choices if choice in WITH]
    config = experiment(path, *_BASE, *(f"{key}={value}" for key, value in told.items()), *more, *others)
    tree = config.model_dump(mode="json")
    for key, value in told.items():
        assert_holds(functools.reduce(operator.getitem, key.split("."), tree), parse_yaml(value, key))
    return config


def assert_holds(value: Any, chosen: Any) -> None:
    """Check that a value of the configuration is the chosen one, or a section that holds the chosen keys."""
    if isinstance(chosen, dict):
        for key, part in chosen.items():
            assert_holds(value[key], part)
    else:
        assert value == chosen


def steps_and_decodes(config: ExperimentConfig, batch: Batch) -> None:
    parts = untrained(config)
    if config.data.phrases is not None or config.augment.noise is not None or config.tokenizer.kind == "bpe":
        data = speech_data(config, parts)
        batch = next(iter(data.train_dataloader()))
        assert ("noise" in batch.applied) == (config.augment.noise is not None)
    task = SpeechTask(parts, config)
    task.total_steps = 3
    optimizer = task.configure_optimizers()["optimizer"]
    loss = task.combine(task.losses(batch), batch)
    loss.backward()
    assert math.isfinite(loss.item())
    weights = [w for w in task.parameters() if w.requires_grad]
    assert all(w.grad is None or bool(w.grad.isfinite().all()) for w in weights)
    optimizer.step()
    assert all(bool(w.isfinite().all()) for w in weights)
    task.eval()
    with torch.no_grad():
        found = task.recognizer.decode(batch.audio_BN, batch.audio_len_B, batch.languages)
    assert [len(hypotheses) for hypotheses in found] == [1] * len(batch.ids)


_ATTENTION_ALONE = (
    *("loss.guided_attention", "loss.scheduled_sampling", "loss.minimum_error", "loss.r_drop", "augment.token_noise"),
    *("decode.ctc_weight", "decode.top_p"),
)
_DECODER = ("norm", "normalization", "position", "score", "attention_dropout", "pointer")
# The pairs that cannot work, by the beginnings of both choices, and what their message says.
REFUSED: list[tuple[str, tuple[str, ...], str]] = [
    ("model.encoder.norm=post", ("model.encoder.layer=conformer",), "norm=post is not for layer=conformer"),
    (
        "model.encoder.layer=lstm",
        tuple(f"model.encoder.position={kind}" for kind in ("learned", "shaw", "transformer_xl", "rotary")),
        "position, first_position and scaled are for layers with positions: not layer=lstm",
    ),
    (
        "model.encoder.layer=lstm",
        tuple(f"model.encoder.{key}=" for key in ("score", "attention_dropout", "window", "chunk")),
        "score, window, chunk and attention_dropout are for layers with attention: not layer=lstm",
    ),
    *(
        (f"model.{side}.score=additive", (f"model.{side}.position={kind}",), f"no dot product that position={kind}")
        for side in ("encoder", "decoder")
        for kind in ("shaw", "transformer_xl", "rotary")
    ),
    ("model.encoder.window", ("model.encoder.chunk",), "window and chunk both limit self-attention"),
    *(
        (f"model.decoder={{kind: {kind}", tuple(f"model.decoder.{key}=" for key in keys), f"kind {kind} has no ")
        for kind, keys in (
            *(("none", _DECODER), ("transducer", _DECODER)),
            *(("mask_predict", _DECODER[-1:]), ("mask_ctc", _DECODER[-1:])),
        )
    ),
    ("model.decoder={kind", _ATTENTION_ALONE, "attention"),
    *(
        (f"model.decoder={{kind: {kind}", ("loss.ctc_weight=0",), f"decoder.kind={kind} needs a CTC head")
        for kind in ("none", "mask_ctc")
    ),
    ("model.decoder={kind: mask_", ("decode.length_bonus", "decode.lm", "decode.phrases"), "attention or none or tr"),
    ("model.decoder={kind: mask_ctc", ("decode.beam_size",), "attention or none or transducer or mask_predict"),
    ("decode.top_p", ("decode.beam_size",), "is for beam search and decode.temperature (--temperature) for sampling"),
    ("model.decoder.pointer", ("loss.minimum_error",), "loss.minimum_error searches without phrase lists"),
    ("loss.ctc_weight=0", ("loss.cr_ctc",), "cr_ctc keeps CTC consistent: it needs a ctc_weight above 0"),
    (
        "loss.ctc_weight=0",
        ("loss.minimum_error={kind: n_best, weight: 0.1, n_best: 2, ctc_weight",),
        "minimum_error.ctc_weight trains CTC, too: it needs a ctc_weight above 0",
    ),
    ("loss.ctc_weight=0", ("decode.ctc_weight",), "this model has no CTC head"),
]


def reason(*choices: tuple[str, str]) -> str | None:
    """Return what the message must say if the choices are to be refused, else None."""
    given = [f"{key}={value}" for key, value in choices]
    for one, others, says in REFUSED:
        for first, second in (given, given[::-1]):
            if first.startswith(one) and second.startswith(others):
                return says
    return None


@pytest.mark.parametrize("choice", CHOICES, ids=lambda choice: f"{choice[0]}={choice[1]}".replace(" ", ""))
def test_every_pair_works_or_is_refused_with_its_reason(choice: tuple[str, str], path: Path, batch: Batch) -> None:
    steps_and_decodes(configured(path, choice), batch)
    for other in CHOICES[CHOICES.index(choice) + 1 :]:
        if other[0] == choice[0]:
            continue
        if says := reason(choice, other):
            with pytest.raises(ConfigError, match=re.escape(says)) as refused:
                steps_and_decodes(configured(path, choice, other), batch)
            assert "\n" not in str(refused.value)
        else:
            steps_and_decodes(configured(path, choice, other), batch)


# Together, all choices of the encoder, the autoregressive decoder's layers, the optimizer and its schedule.
RESUMED = {
    "conformer": {
        "model.encoder.layer": "conformer",
        "model.encoder.normalization": "batch",
        "model.encoder.position": "transformer_xl",
        "model.encoder.attention_dropout": "0.1",
        "model.encoder.window": "{left: 4, right: 2}",
        "model.encoder.subsampling": "{kind: conv2d, channels: 4}",
        "model.decoder.normalization": "rms",
        "model.decoder.position": "shaw",
        "optimizer.kind": "adam",
        "optimizer.schedule": "cosine",
        "augment.noise": "FOLDER/noise",
    },
    "lstm": {
        "model.encoder.layer": "lstm",
        "model.encoder.position": "none",
        "model.encoder.subsampling": "{factor: 8}",
        "model.decoder.score": "additive",
        "model.decoder.norm": "post",
        "model.decoder.position": "none",
        "optimizer.kind": "rmsprop",
        "optimizer.schedule": "constant",
        "tokenizer.kind": "bpe",
    },
    "post-norm": {
        "model.encoder.norm": "post",
        "model.encoder.normalization": "rms",
        "model.encoder.position": "shaw",
        "model.encoder.chunk": "{frames: 4, left: 1}",
        "model.encoder.subsampling": "{kind: glu}",
        "model.decoder.normalization": "power",
        "model.decoder.position": "rotary",
        "optimizer.kind": "adagrad",
        "optimizer.schedule": "plateau",
    },
    "power norm": {
        "model.encoder.normalization": "power",
        "model.encoder.position": "rotary",
        "model.encoder.subsampling": "{factor: 2}",
        "model.decoder.normalization": "batch",
        "model.decoder.position": "transformer_xl",
        "optimizer.kind": "sgd",
        "optimizer.momentum": "0.9",
    },
    "additive": {
        "model.encoder.position": "learned",
        "model.encoder.score": "additive",
        "model.decoder.position": "sinusoidal",
        "model.decoder.attention_dropout": "0.1",
    },
}
_ELSEWHERE = ("model.decoder", "model.decoder.pointer")  # in test_kinds.py, test_copying.py


def test_all_parts_are_in_resumed_runs() -> None:
    parts = {
        (key, value) for key, value in CHOICES if key.startswith(("model.", "optimizer.")) and key not in _ELSEWHERE
    }
    assert parts <= {choice for chosen in RESUMED.values() for choice in chosen.items()}


@pytest.mark.parametrize("name", RESUMED)
def test_run_resumed_halfway_equals_the_whole_run(name: str, path: Path, tmp_path: Path) -> None:
    limits = ("trainer.max_epochs=null", "trainer.max_steps=4", "trainer.validate_every_steps=2")
    others = (f"out={tmp_path / 'run'}", "trainer.plot_utterances=0", "optimizer.warmup_steps=1")
    config = configured(path, *RESUMED[name].items(), others=(*limits, *others))

    def weights() -> dict[str, Tensor]:
        train(config, Console(file=io.StringIO()))
        (_, half), (_, whole) = states_in(tmp_path / "run" / "states")
        first, last = load_state(half)["state_dict"], load_state(whole)["state_dict"]
        whole.unlink()
        assert any(not torch.equal(first[weight], last[weight]) for weight in first)
        return last

    expected, found = weights(), weights()
    assert [weight for weight in expected if not torch.equal(expected[weight], found[weight])] == []
