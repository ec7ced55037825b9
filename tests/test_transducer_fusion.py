"""Transducers with language models and phrase lists against the scores of all texts, and in the recognizer."""

from __future__ import annotations

import itertools
import json
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from command import asr
from models import noises, small_model
from synthetic import clip, manifest
from test_language_model import untrained
from test_ngram import ARPA, LETTERS
from test_transducer import loss_by_loop, transducer
from torch import Tensor

from asr.checkpoint import save_model_folder
from asr.data.batch import pad_audio
from asr.decode.fusion import Fusion
from asr.decode.ngram import TokenNGrams, WordNGrams
from asr.decode.phrases import PhraseScorer
from asr.decode.search import Hypothesis, SearchOptions, Weighted
from asr.decode.transducer import Limits, transducer_search
from asr.lm.train import train_ngrams
from asr.model.transducer import Transducer
from asr.phrases.lists import Phrase
from asr.phrases.spelling import Speller
from asr.recognizer import Recognizer
from asr.recognizer.searchers import no_text_ids

BLANK, START, END = LETTERS.blank_id, LETTERS.start_id, LETTERS.eos_id
NEVER = no_text_ids(LETTERS)
TOKENS = range(LETTERS.first_text_id, LETTERS.vocab_size)
CAP = 3
TEXTS = [text for n in range(CAP + 1) for text in itertools.product(TOKENS, repeat=n)]
WORDS = "\\data\\\nngram 1=6\nngram 2=2\n\n\\1-grams:\n-99\t<s>\n-0.9\t</s>\n-1.5\t<unk>\n-0.6\ta\t-0.2\n-0.7\tba\n"
WORDS += "-1.1\tc\n\n\\2-grams:\n-0.2\ta c\n-0.3\ta </s>\n\n\\end\\\n"
SETS = {
    "tokens": ["tokens"],
    "words": ["words"],
    "network": ["network"],
    "phrases": ["phrases"],
    "all": ["tokens", "words", "network", "phrases"],
}


@pytest.fixture(scope="module")
def scorers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Weighted]:
    folder = tmp_path_factory.mktemp("scorers")
    (folder / "tokens.arpa").write_text(ARPA)
    (folder / "words.arpa").write_text(WORDS)
    listed = [Phrase("a b", 2.0), Phrase("b"), Phrase("cab", 4.0), Phrase("ca")]
    phrases = PhraseScorer(listed, Speller(LETTERS))
    found = [
        Weighted("tokens", TokenNGrams(folder / "tokens.arpa", LETTERS), 0.7),
        Weighted("words", WordNGrams(folder / "words.arpa", LETTERS, 1.0), 0.4),
        Weighted("network", untrained(vocab_size=LETTERS.vocab_size), 0.5),
        Weighted("phrases", phrases, 2.5, phrases.rise),
    ]
    return {scorer.name: scorer for scorer in found}


@torch.no_grad()
def parts_of(text: Sequence[int], scorers: Sequence[Weighted]) -> dict[str, float]:
    """Return each scorer's part of a finished text, token by token."""
    parts = {}
    for name, scorer, _, _ in scorers:
        log_prob_1V, state = scorer.step(torch.tensor([[START]]), scorer.start(None))
        parts[name] = 0.0
        for token in (*text, END):
            parts[name] += float(log_prob_1V[0, token])
            log_prob_1V, state = scorer.step(torch.tensor([[token]]), state)
    return parts


@torch.no_grad()
def log_prob_of(model: Transducer, states_TD: Tensor, text: tuple[int, ...]) -> float:
    logits_1TUV = model(torch.tensor([[START, *text]]), 1, states_TD[None])
    return -float(loss_by_loop(logits_1TUV[0].double().log_softmax(-1), list(text), BLANK))


def searched(
    model: Any, frames_BTJ: Tensor, len_B: Tensor, options: SearchOptions, used: Sequence[Weighted], symbols: int = 99
) -> list[list[Hypothesis]]:
    limits, prefix_BP = Limits(NEVER, symbols, [CAP] * len(len_B)), torch.full((len(len_B), 1), START)
    return transducer_search(model, frames_BTJ, len_B, prefix_BP, BLANK, limits, options, Fusion(used, END))


@pytest.mark.parametrize("names", SETS)
@pytest.mark.parametrize(("seed", "bonus"), [(0, 0.0), (1, 0.5)])
def test_unpruned_search_finds_the_texts_that_are_best_by_all_scores(
    names: str, seed: int, bonus: float, scorers: dict[str, Weighted]
) -> None:
    model, used = transducer(vocab=LETTERS.vocab_size, seed=seed, gain=3.0), [scorers[name] for name in SETS[names]]
    states_BTD, lengths = torch.randn(3, 3, 4), [3, 2, 0]
    options = SearchOptions(beam_size=100, n_best=4, length_bonus=bonus)
    with torch.inference_mode():
        found = searched(model, model.frames(states_BTD), torch.tensor(lengths), options, used)
    parts = {text: parts_of(text, used) for text in TEXTS}
    for states_TD, length, best in zip(states_BTD, lengths, found, strict=True):
        texts = TEXTS if length else [()]
        expected: dict[tuple[int, ...], Hypothesis] = {}
        for text in texts:
            log_prob = log_prob_of(model, states_TD[:length], text) if length else 0.0
            score = log_prob + bonus * len(text) + sum(w.weight * parts[text][w.name] for w in used)
            expected[text] = Hypothesis(text, score, {"transducer": log_prob, **parts[text]})
        first = sorted(expected.values(), key=lambda h: -h.score)[:4]
        assert [h.tokens for h in best] == [h.tokens for h in first]
        for h, right in zip(best, first, strict=True):
            assert h.score == pytest.approx(right.score, abs=1e-4)
            assert h.parts == pytest.approx(right.parts, abs=1e-4)


class Spelling:
    """A transducer whose only likely text but the empty one is 'cab', of which only the first letter is improbable."""

    def __init__(self) -> None:
        self.log_prob_VV = torch.full((LETTERS.vocab_size, LETTERS.vocab_size), -20.0)
        c, a, b = LETTERS.encode("cab")
        self.log_prob_VV[START, BLANK], self.log_prob_VV[START, c] = 0.0, -6.0
        self.log_prob_VV[c, a] = self.log_prob_VV[a, b] = self.log_prob_VV[b, BLANK] = -0.1

    def start(self, prefix_NP: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        return prefix_NP[:, -1:].float(), ()

    def step(self, tokens_N: Tensor, state: tuple[Tensor, ...]) -> tuple[Tensor, tuple[Tensor, ...]]:
        return tokens_N[:, None].float(), ()

    def look(self, frame_NJ: Tensor, token_NJ: Tensor) -> Tensor:
        return self.log_prob_VV[token_NJ[:, 0].long()].clone()


def test_search_goes_on_while_a_phrase_can_still_win() -> None:
    """After one step the empty text has ended with score 0, and 'c' has -6 + 2.5."""
    phrases = PhraseScorer([Phrase("cab")], Speller(LETTERS))
    used = [Weighted("phrases", phrases, 2.5, phrases.rise)]
    ((best,),) = searched(Spelling(), torch.zeros(1, 1, 1), torch.tensor([1]), SearchOptions(beam_size=2), used)
    assert LETTERS.decode(best.tokens) == "cab"
    assert best.score == pytest.approx(3 * 2.5 - 6.3, abs=1e-5)
    assert best.parts == pytest.approx({"transducer": -6.3, "phrases": 3.0}, abs=1e-5)


def test_greedy_search_takes_the_best_sum_at_each_step(scorers: dict[str, Weighted]) -> None:
    model, used = transducer(vocab=LETTERS.vocab_size, seed=2, gain=6.0), [scorers["tokens"], scorers["phrases"]]
    states_BTD, lengths = 2 * torch.randn(4, 5, 4), [5, 3, 1, 4]

    @cache
    @torch.no_grad()
    def look(b: int, t: int, text: tuple[int, ...]) -> list[float]:
        logits_1TUV = model(torch.tensor([[START, *text]]), 1, states_BTD[b, None, t : t + 1])
        log_prob_V = logits_1TUV[0, 0, -1].log_softmax(-1)
        for _, scorer, weight, _ in used:
            gain_1V, state = scorer.step(torch.tensor([[START]]), scorer.start(None))
            for token in text:
                gain_1V, state = scorer.step(torch.tensor([[token]]), state)
            last = t == lengths[b] - 1
            log_prob_V += weight * gain_1V[0].index_fill(0, torch.tensor(BLANK), float(gain_1V[0, END]) * last)
        return log_prob_V.tolist()

    with torch.inference_mode():
        found = searched(model, model.frames(states_BTD), torch.tensor(lengths), SearchOptions(), used, symbols=2)
    for b, ((best,), length) in enumerate(zip(found, lengths, strict=True)):
        text: tuple[int, ...] = ()
        for t in range(length):
            for count in itertools.count():
                allowed = [BLANK, *TOKENS] if count < 2 and len(text) < CAP else [BLANK]
                token = max(allowed, key=lambda i: look(b, t, text)[i])
                if token == BLANK:
                    break
                text += (token,)
        assert best.tokens == text
    assert len({best.tokens for (best,) in found}) > 1


# ---- in the recognizer --------------------------------------------------------------------------------------

DECODER = {"kind": "transducer", "dim": 8, "joiner": 8}


@pytest.fixture(scope="module")
def given(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """Options with language models and phrases."""
    folder = tmp_path_factory.mktemp("given")
    save_model_folder(folder / "model", small_model(decoder=DECODER))
    (folder / "texts.txt").write_text("hello world\nhold her door\nwell done\n")
    (folder / "names.txt").write_text("hello\nred\t3\n")
    train_ngrams([folder / "texts.txt"], folder / "model", 3, folder / "lm.arpa")
    train_ngrams([folder / "texts.txt"], folder / "model", 2, folder / "words.arpa", "word")
    return {
        "lm": {"lm": folder / "lm.arpa", "lm_weight": 0.8},
        "words": {"lm": folder / "words.arpa", "lm_unit": "word", "lm_weight": 0.8},
        "phrases": {"phrases": folder / "names.txt", "phrase_bonus": 5.0},
    }


def decoded(audio: Sequence[Tensor], **options: Any) -> list[list[Hypothesis]]:
    return Recognizer(small_model(decoder=DECODER, **options)).decode(*pad_audio(audio))


@pytest.mark.parametrize("names", [("lm",), ("words", "phrases")], ids="+".join)
@pytest.mark.parametrize("beam", [1, 4])
def test_a_text_does_not_depend_on_its_batch_and_its_parts_add_up(
    names: Sequence[str], beam: int, given: dict[str, dict[str, Any]]
) -> None:
    audio = noises(1.0, 0.5, 0.8, 0.1)
    options = {"beam_size": beam, "n_best": beam, **{k: v for name in names for k, v in given[name].items()}}
    plain, together = decoded(audio, beam_size=beam), decoded(audio, **options)
    assert [h[0].tokens for h in together] != [h[0].tokens for h in plain]
    weights = {"transducer": 1.0, "lm": 0.8, **({"phrases": 5.0} if "phrases" in names else {})}
    for waveform_N, hypotheses in zip(audio, together, strict=True):
        (alone,) = decoded([waveform_N], **options)
        assert [h.tokens for h in alone] == [h.tokens for h in hypotheses]
        for h in hypotheses:
            assert h.parts.keys() == weights.keys()
            total = sum(weight * h.parts[name] for name, weight in weights.items())
            assert h.score == pytest.approx(total, abs=1e-4)


def test_language_models_and_phrases_of_weight_0_change_nothing(given: dict[str, dict[str, Any]]) -> None:
    audio = noises(1.0, 0.5, 0.8)
    for beam in (1, 3):
        plain = decoded(audio, beam_size=beam, n_best=beam)
        off = {**given["lm"], "lm_weight": 0.0, **given["phrases"], "phrase_bonus": 0.0}
        assert decoded(audio, beam_size=beam, n_best=beam, **off) == plain


def test_hotwords_raise_a_phrase(given: dict[str, dict[str, Any]]) -> None:
    tokenizer, audio = small_model().tokenizer, noises(1.0, 0.5)

    def said(**options: Any) -> list[int]:
        texts = [tokenizer.decode(h[0].tokens) for h in decoded(audio, beam_size=8, **options)]
        return [text.split().count("red") for text in texts]  # of weight 3, while hello has 1

    assert said() == [0, 0]
    assert min(said(phrases=given["phrases"]["phrases"], phrase_bonus=100.0)) > 0


def test_evaluate_and_tune_search_with_them(given: dict[str, dict[str, Any]], tmp_path: Path) -> None:
    audio = enumerate(noises(0.5, 1.2))
    dev = manifest(tmp_path / "dev.jsonl", [clip(tmp_path / f"{i}.wav", 0.2 * x.numpy(), "red") for i, x in audio])
    save_model_folder(tmp_path / "model", small_model(decoder=DECODER, beam_size=8))
    told = [dev, "--model", tmp_path / "model", "--lm", given["lm"]["lm"], "--hotwords", given["phrases"]["phrases"]]
    done = asr("evaluate", *told, "--hotword-bonus", 100, "--out", tmp_path / "out")
    assert done.status == 0, done.err
    assert all("red" in text.split() for text in hypotheses(tmp_path / "out"))
    done = asr("tune", *told, "--grid", "lm_weight=0,0.5", "--grid", "phrase_bonus=0,100", "--json")
    assert done.status == 0, done.err
    first, *_, last = (without_setting(each) for each in json.loads(done.out))
    assert first != last


def test_validation_searches_with_them(config: Path, tmp_path: Path) -> None:
    (tmp_path / "names.txt").write_text("one\n")
    decode = "decode.beam_size=4", f"decode.phrases={tmp_path / 'names.txt'}", "decode.phrase_bonus=100"
    steps = "trainer.max_epochs=null", "trainer.max_steps=2", "trainer.validate_every_steps=2"
    model = f"model.decoder={json.dumps(DECODER)}", "loss.guided_attention.weight=0"
    done = asr("train", config, *model, *steps, *decode, f"out={tmp_path / 'run'}")
    assert done.status == 0, done.err
    assert all("one" in text.split() for text in hypotheses(tmp_path / "run"))


def without_setting(tried: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in tried.items() if name != "setting"}


def hypotheses(folder: Path) -> list[str]:
    return [json.loads(line)["text"] for line in (folder / "hyp.jsonl").read_text().splitlines()]
