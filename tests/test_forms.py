"""Position encodings and attention scores in whole models: training, padding and cached decoding."""

from __future__ import annotations

import io
import itertools
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from models import RATE, noises, small_model, sources, texts
from rich.console import Console
from synthetic import experiment, experiment_file, untrained
from test_task import prepared
from torch import Tensor

from asr.align import HeadAttention, WordTimer
from asr.checkpoint import load_model_folder, save_model_folder
from asr.config import EncoderConfig, ExperimentConfig, ModelConfig, read_config
from asr.data.batch import pad_audio
from asr.errors import ConfigError
from asr.evidence import evidence
from asr.model import additive
from asr.model.additive import Additive
from asr.model.attention import Form, blockwise, explicit, fused, products
from asr.model.position import NoPosition
from asr.model.precision import set_precision
from asr.model.rows import Rows
from asr.recognizer import Recognizer
from asr.training.run import train
from asr.training.start import starting_point

POSITIONS = ["none", "sinusoidal", "learned", "shaw", "transformer_xl", "rotary"]
FORMS: dict[str, dict[str, Any]] = {
    **{position: {"position": position} for position in POSITIONS},
    "shaw": {"position": "shaw", "clip": 5},
    "additive": {"score": "additive"},
}
NEAR: dict[str, dict[str, Any]] = {
    "window": {"window": {"left": 6, "right": 3}},
    "chunk": {"chunk": {"frames": 8, "left": 1}},
}
NORMALIZATIONS = [{"normalization": kind} for kind in ("rms", "batch", "power")]
OPTIONS = {**FORMS, **{f"{n} {f}": {**FORMS[f], **NEAR[n]} for n, f in itertools.product(NEAR, FORMS)}}


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return experiment_file(tmp_path_factory.mktemp("corpus"), train=12, dev=2)


# ---- additive attention ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("attend", [fused, explicit, products, blockwise])
def test_additive_attention_equals_a_loop_over_pairs(attend: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    form, (L, T, K) = Additive(12, 3).requires_grad_(False), (5, 7, 4)
    monkeypatch.setattr(additive, "MOST_SUMS", 2 * 2 * 3 * T * K)  # two queries at a time
    q, k, v = (torch.randn(2, 3, n, K) for n in (L, T, T))
    weight_B11T = torch.randn(2, 1, 1, T)
    got, attention = form(attend, q, k, v, weight_B11T)
    for b, h, i in itertools.product(range(2), range(3), range(L)):
        scores = [
            float(weight_B11T[b, 0, 0, t])
            + sum(float(form.weight_HK[h, x]) * math.tanh(q[b, h, i, x] + k[b, h, t, x]) for x in range(K))
            for t in range(T)
        ]
        total = sum(map(math.exp, scores))
        shares = torch.tensor([math.exp(score) / total for score in scores])
        torch.testing.assert_close(got[b, h, i], shares @ v[b, h], atol=1e-5, rtol=0)
        if attention is not None:
            torch.testing.assert_close(attention[b, h, i], shares, atol=1e-5, rtol=0)


def test_additive_attention_gradients_do_not_depend_on_the_block_size(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    form = Additive(8, 2).double()
    inputs = [torch.randn(1, 2, n, 4, dtype=torch.double, requires_grad=True) for n in (5, 6, 6)]
    wanted = [*inputs, form.weight_HK]
    whole = torch.autograd.grad(form(fused, *inputs, None)[0].square().sum(), wanted)
    monkeypatch.setattr(additive, "MOST_SUMS", 1)
    parts = torch.autograd.grad(form(fused, *inputs, None)[0].square().sum(), wanted)
    assert all(torch.allclose(a, b) for a, b in zip(whole, parts, strict=True))
    assert torch.autograd.gradcheck(lambda *x: form(explicit, *x, None)[0], inputs)


@pytest.mark.parametrize("heads", [1, 2])
@torch.inference_mode()
def test_additive_attention_weights_give_word_times_and_evidence(heads: int) -> None:
    parts = small_model(decoder={"score": "additive", "heads": heads}, ctc=False)
    audio_BN, audio_len_B = pad_audio(noises(1.0, 0.5))
    memory = parts.model.encode(audio_BN, audio_len_B)
    prefix_BP, spoken = (
        torch.tensor([parts.tokenizer.prefix()] * 2),
        [parts.tokenizer.encode(t) for t in ("hello", "we")],
    )
    tokens_BL, len_B = torch.tensor([[*parts.tokenizer.prefix(), *parts.tokenizer.encode("hello")]]), torch.tensor([5])
    alone = memory._replace(
        states_BTD=memory.states_BTD[:1], log_weight_BT=memory.log_weight_BT[:1], len_B=memory.len_B[:1]
    )
    logits_BLV, (attention_BHLT,) = parts.model.decoder(tokens_BL, alone, explicit)
    gathered = HeadAttention({0: [heads - 1]}, alone.len_B, 1, len_B)
    again_BLV, _ = parts.model.decoder(tokens_BL, alone, gathered)
    torch.testing.assert_close(again_BLV, logits_BLV, atol=1e-4, rtol=0)
    torch.testing.assert_close(gathered.weight_BRT, attention_BHLT[:, -1], atol=1e-5, rtol=0)
    assert attention_BHLT[0, -1].std(-1).min() > 1e-3, "uniform weights would prove nothing"
    words = WordTimer(parts.model, parts.tokenizer, 0.04).words(memory, spoken, prefix_BP, audio_BN, audio_len_B)
    assert [[w.text for w in text] for text in words] == [["hello"], ["we"]]
    heard = evidence(parts.model.decoder, memory, prefix_BP, spoken)
    expected = attention_BHLT[0].argmax(-1).median(0).values.tolist()[: len(spoken[0])]
    assert heard[0].positions == expected


# ---- whole models ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", OPTIONS)
@torch.inference_mode()
def test_batching_and_padding_do_not_change_encoder_output(kind: str) -> None:
    model = small_model(encoder=OPTIONS[kind]).model
    audio = noises(1.5, 0.9, 0.05)
    together = model.encode(*pad_audio(audio))
    audio_BN, len_B = pad_audio(audio)
    padded = model.encode(torch.nn.functional.pad(audio_BN, (0, 3 * RATE)), len_B)
    for b, one in enumerate(audio):
        alone = model.encode(*pad_audio([one]))
        frames = int(alone.len_B[0])
        for other in (together, padded):
            assert int(other.len_B[b]) == frames
            torch.testing.assert_close(other.states_BTD[b, :frames], alone.states_BTD[0], atol=1e-4, rtol=1e-5)


@pytest.mark.parametrize("kind", FORMS)
@pytest.mark.parametrize("norm", [*({"norm": place} for place in ("pre", "post")), *NORMALIZATIONS], ids=str)
@torch.inference_mode()
def test_batching_and_padding_do_not_change_decoder_output(kind: str, norm: dict[str, str]) -> None:
    model, audio = small_model(decoder={**FORMS[kind], **norm, "layers": 2}).model, noises(1.5, 0.9, 0.3)
    for weight in model.parameters():
        weight /= 2 if weight.dim() > 1 else 1  # large weights amplify rounding
    audio_BN, len_B = pad_audio(audio)
    padded = model.encode(torch.nn.functional.pad(audio_BN, (0, 3 * RATE)), len_B)
    tokens_BL = torch.randint(3, 9, (3, 8), generator=torch.Generator().manual_seed(2))
    text_len_B = torch.tensor([5, 8, 6])
    stepped_BV, _ = model.decoder.step(tokens_BL[:, :5], model.decoder.start(padded))
    fast_BLV, _ = model.decoder(tokens_BL, padded, fused, text_len_B)
    exact_BLV, attentions = model.decoder(tokens_BL, padded, explicit, text_len_B)
    for b, n in enumerate(text_len_B.tolist()):
        alone = model.encode(*pad_audio(audio[b : b + 1]))
        alone_1LV, alone_attentions = model.decoder(tokens_BL[b : b + 1, :n], alone, explicit)
        rounding = {"atol": 1e-5 * max(10.0, float(alone_1LV.abs().max())), "rtol": 0}
        torch.testing.assert_close(fast_BLV[b, :n], alone_1LV[0], **rounding)
        torch.testing.assert_close(exact_BLV[b, :n], alone_1LV[0], **rounding)
        torch.testing.assert_close(stepped_BV[b], alone_1LV[0, 4].log_softmax(-1), **rounding)
        for attention_BHLT, alone_1HLT in zip(attentions, alone_attentions, strict=True):
            frames = alone_1HLT.shape[-1]
            torch.testing.assert_close(attention_BHLT[b, :, :n, :frames], alone_1HLT[0], atol=1e-4, rtol=0)
            assert not attention_BHLT[b, :, :, frames:].any()


@pytest.mark.parametrize("kind", FORMS)
@pytest.mark.parametrize("norm", ["pre", "post"])
@torch.inference_mode()
def test_decoding_in_steps_equals_teacher_forcing(kind: str, norm: str) -> None:
    """Four texts of two utterances, of which the search keeps some, in another order, between steps."""
    parts = small_model(encoder={**FORMS[kind], "norm": norm}, decoder={**FORMS[kind], "norm": norm, "layers": 2})
    decoder, memory = parts.model.decoder, parts.model.encode(*pad_audio(noises(1.0, 0.6)))
    tokens_NL = torch.randint(3, 9, (4, 12), generator=torch.Generator().manual_seed(2))
    expected = decoder(tokens_NL, memory)[0].log_softmax(-1)
    shorter = decoder(tokens_NL[:, :7], memory)[0].log_softmax(-1)
    torch.testing.assert_close(shorter, expected[:, :7], atol=1e-4, rtol=0)
    state, text_N = decoder.reorder(decoder.start(memory), torch.tensor([0, 0, 1, 1])), torch.arange(4)
    for first, last, kept in ((0, 1, [1, 0, 2, 3]), (1, 4, [1, 0, 3, 3]), (4, 5, [0, 1, 2, 3]), (5, 6, [3, 2])):
        got, state = decoder.step(tokens_NL[text_N, first:last], state)
        torch.testing.assert_close(got, expected[text_N, last - 1], atol=1e-4, rtol=0)
        state, text_N = decoder.reorder(state, torch.tensor(kept)), text_N[kept]
    got, _ = decoder.step(tokens_NL[text_N, 6:], state)
    torch.testing.assert_close(got, expected[text_N, 11], atol=1e-4, rtol=0)


@pytest.mark.parametrize("kind", FORMS)
def test_frame_order_matters_unless_position_is_none(kind: str) -> None:
    torch.manual_seed(0)
    layer = small_model(encoder=FORMS[kind]).model.encoder
    x_BTD = torch.randn(1, 9, 32)

    def read(x_BTD: Tensor) -> Tensor:
        rows, weight = Rows(torch.tensor([9]), 9), torch.zeros(1, 1, 1, 9)
        return rows.spread(layer.layers[0](rows.pack(layer.position(x_BTD)), rows, weight))

    with torch.no_grad():
        same = torch.allclose(read(x_BTD.flip(1)).flip(1), read(x_BTD), atol=1e-4)
    assert same == (kind == "none")


@pytest.mark.parametrize("kind", OPTIONS)
def test_every_weight_is_trained(kind: str, path: Path) -> None:
    chosen = [f"model.encoder.{key}={value}" for key, value in OPTIONS[kind].items()]
    chosen += [f"model.decoder.{key}={value}" for key, value in OPTIONS[kind].items() if key not in NEAR]
    task, data = prepared(path, *chosen, "loss.ctc_weight=0.3", "data.max_duration_s=20", "decode.window_s=20")
    batch = data.dev_batch(list(data.train_cuts)[:3])
    before = {name: weight.detach().clone() for name, weight in task.model.named_parameters()}
    optimizer = torch.optim.AdamW(task.model.parameters(), lr=1e-3, weight_decay=0.0)
    for _ in range(2):  # two, in case a weight has no gradient in the first step
        optimizer.zero_grad()
        task.combine(task.losses(batch), batch).backward()
        optimizer.step()
    still = [name for name, weight in task.model.named_parameters() if torch.equal(weight, before[name])]
    assert still == []


@pytest.mark.parametrize("kind", FORMS)
@pytest.mark.parametrize("precision", ["bfloat16", "int8"])
def test_low_precision_output_is_close_to_exact(kind: str, precision: Any) -> None:
    def model() -> Any:
        return small_model(encoder={**FORMS[kind], **NEAR["window"]}, decoder=FORMS[kind]).model

    exact, cheap = model(), model()
    set_precision(cheap, precision)
    audio_BN, len_B = pad_audio(noises(1.0, 0.7))
    tokens_BL = torch.tensor([[1, 5, 6, 7]] * 2)
    with torch.inference_mode():
        expected, _ = exact.decoder(tokens_BL, exact.encode(audio_BN, len_B))
        got, _ = cheap.decoder(tokens_BL, cheap.encode(audio_BN, len_B))
        stepped, _ = cheap.decoder.step(tokens_BL, cheap.decoder.start(cheap.encode(audio_BN, len_B)))
    assert 0 < (got - expected).norm() < 0.2 * expected.norm()
    assert (stepped - expected[:, -1].log_softmax(-1)).norm() < 0.2 * expected[:, -1].log_softmax(-1).norm()


def test_model_with_new_parts_trains_plots_and_reloads(path: Path, tmp_path: Path) -> None:
    options = ("model.encoder={position: transformer_xl, window: {left: 8, right: 8}, dim: 16, heads: 2, layers: 1}",)
    options += ("model.decoder.score=additive", f"out={tmp_path / 'run'}", "trainer.max_steps=2")
    folder = train(experiment(path, *options), Console(file=io.StringIO()))
    assert list((tmp_path / "run" / "plots").glob("*.png"))
    recognizer = Recognizer(load_model_folder(folder))
    assert type(recognizer.model.encoder.position) is NoPosition
    assert len(texts(list(recognizer.transcribe_sources(sources(noises(1.0, 0.5)), words=True)))) == 2


def test_default_model_uses_plain_attention() -> None:
    model = small_model().model
    assert {type(m) for m in model.modules() if isinstance(m, Form)} == {Form}
    assert not [name for name in model.state_dict() if ".form." in name]


# ---- learned positions of the encoder -------------------------------------------------------------------------


def test_window_is_limited_to_the_learned_positions() -> None:
    parts = small_model(encoder={"position": "learned", "longest_s": 2.0}, window_s=30.0)
    recognizer = Recognizer(parts)
    assert recognizer.window_s == 2.0
    (result,) = recognizer.transcribe_sources(sources(noises(7.0)))
    assert texts([result])
    assert result.duration_s == pytest.approx(7.0)
    length = parts.model.encoder.lengths(torch.tensor([round(2.0 / parts.model.front_end.hop_s)]))
    assert len(parts.model.encoder.position.weight) > int(length)


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("data.max_duration_s=40", "data.max_duration_s=40 is longer than the 30 s of model.encoder.longest_s, beyond"),
        ("augment.join_max_s=50", "augment.join_max_s=50 is longer than"),
    ],
)
def test_training_beyond_learned_positions_is_refused(override: str, expected: str, path: Path, tmp_path: Path) -> None:
    config = experiment(path, "model.encoder.position=learned", override, f"out={tmp_path / 'run'}")
    with pytest.raises(ConfigError) as caught:
        train(config, Console(file=io.StringIO()))
    assert expected in str(caught.value)
    assert "\n" not in str(caught.value)


# ---- incompatible options -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("encoder", "expected"),
    [
        ("{position: rotary, score: additive}", "score=additive has no dot product that position=rotary could change"),
        ("{position: shaw, padding: recall}", "padding=recall has no distances to the remembered silence"),
        ("{position: rotary, first_position: 2}", "first_position is for position=sinusoidal"),
        ("{position: rotary, dim: 12, heads: 4}", "heads of width 3 must be even"),
        ("{window: {left: 1, right: 1}, chunk: {frames: 8}}", "give one of them"),
        ("{window: {left: 1, right: 1}, padding: keep}", "padding=keep is for attention to all frames"),
        ("{chunk: {frames: 8}, padding: recall}", "padding=recall is for attention to all frames"),
        ("{window: {left: 1}}", "key 'model.encoder.window.right' is missing"),
        ("{window: {left: 1, rihgt: 1}}", "did you mean 'model.encoder.window.right'"),
        ("{window: {left: -1, right: 1}}", "'model.encoder.window.left'"),
        ("{position: relative}", "'model.encoder.position'"),
    ],
)
def test_incompatible_encoder_options_are_refused_in_one_line(encoder: str, expected: str, tmp_path: Path) -> None:
    file = tmp_path / "run.yaml"
    file.write_text(
        f"out: run\ndata: {{train: a, dev: b}}\ntrainer: {{max_steps: 10}}\nmodel: {{encoder: {encoder}}}\n"
    )
    with pytest.raises(ConfigError) as caught:
        read_config(ExperimentConfig, file)
    assert expected in str(caught.value)
    assert "\n" not in str(caught.value)


def test_incompatible_decoder_options_are_refused() -> None:
    for decoder, expected in (
        ({"position": "rotary", "heads": 32}, "heads of width 1 must be even"),
        ({"position": "shaw", "score": "additive"}, "take score=dot"),
        ({"position": "none", "first_position": 1}, "first_position is for"),
    ):
        with pytest.raises(ValueError, match=expected):
            ModelConfig(encoder=EncoderConfig(dim=32), decoder=decoder)


def test_rotary_model_cannot_be_adapted_to_recall_padding(path: Path, tmp_path: Path) -> None:
    windowed = ("features.kind=whisper", "features.window_s=5", "model.encoder.position=rotary")
    save_model_folder(tmp_path, untrained(experiment(path, *windowed)))
    given = experiment(path).model_dump(exclude={"features", "model", "tokenizer"}, exclude_unset=True)
    config = ExperimentConfig(**{**given, "init": tmp_path, "adapt": {"padding": "recall"}})
    with pytest.raises(ConfigError, match=r"adapt changes: .*: padding=recall has no distances"):
        starting_point(config)


def test_training_beyond_the_front_end_window_is_refused(path: Path, tmp_path: Path) -> None:
    window = "features={kind: whisper, n_mels: 20, window_s: 5}", "data.max_duration_s=6"
    with pytest.raises(ConfigError, match=r"^data\.max_duration_s=6 is longer than the 5 s of features\.window_s$"):
        train(experiment(path, *window, f"out={tmp_path / 'run'}"), Console(file=io.StringIO()))
