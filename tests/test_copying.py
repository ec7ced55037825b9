"""Copying from phrase lists: the tree, the pointer's mixture against plain loops, search, and training."""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from models import noises, small_model
from rich.console import Console
from synthetic import experiment, experiment_file, logged_steps, untrained
from test_phrases import LETTERS, PIECES
from test_task import fit, prepared
from torch import Tensor

from asr.checkpoint import ModelFolder, load_model_folder, save_model_folder
from asr.config import PhraseListConfig, PointerConfig
from asr.data.phrases import RareWords
from asr.decode.search import SearchOptions, Weighted, search
from asr.errors import ConfigError
from asr.model.copying import Copying, copying
from asr.model.decoder import Decoder
from asr.model.masks import Memory
from asr.model.pointer import Pointer
from asr.model.precision import Precision
from asr.phrases.lists import Phrase
from asr.phrases.spelling import Speller, spellings
from asr.phrases.tree import PhraseTree
from asr.recognizer import Recognizer
from asr.tokenizer import CharacterTokenizer
from asr.training.run import train
from asr.training.start import starting_point

WITH_LISTS = ("model.decoder.pointer={}", "data.phrases={rare_below: 1000, keep: 0.7, distractors: [0, 3]}")
Vocabulary = type(PIECES) | type(LETTERS)


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return experiment_file(tmp_path_factory.mktemp("corpus"), train=20, dev=2)


def tree_of(tokenizer: Vocabulary, *lists: Sequence[str]) -> PhraseTree:
    speller = Speller(tokenizer)
    return PhraseTree.of([speller.automaton(map(Phrase, phrases)).paths() for phrases in lists])


def valid(tree: PhraseTree, texts: Sequence[Sequence[int]]) -> list[set[int]]:
    """Return the tokens that may come next after each text by its own list."""
    ahead_BW = tree.ahead(tree.along(torch.tensor(texts))[:, -1])
    assert ahead_BW[:, -1].all()
    return [set(tree.token_U[ahead_W[:-1]].tolist()) for ahead_W in ahead_BW]


# ---- the tree -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ([], [" a", " ab"]),
        ([" a"], [" b", " a", " ab"]),  # a phrase is complete, a longer one continues, any may begin
        ([" a", " b"], [" ab", " a"]),
        ([" a", " b", " ab"], [" a", " ab"]),
        ([" ab"], [",", " a", " ab"]),
        ([" ab", "a"], [" a", " ab"]),  # the word has left the tree until the next word begins
        ([" b", ","], [" a", " ab"]),
        ([" a", " b", " b"], [" a", " ab"]),
    ],
)
def test_tree_allows_the_next_pieces_of_phrases(text: list[str], expected: list[str]) -> None:
    tree = tree_of(PIECES, ["a", "a b ab", "ab,"])
    (found,) = valid(tree, [[PIECES.pieces.index(piece) for piece in text]])
    assert found == {PIECES.pieces.index(piece) for piece in expected}


@settings(max_examples=50)
@given(st.lists(st.lists(st.text("ab", min_size=1, max_size=4), max_size=4), min_size=1, max_size=3), st.randoms())
def test_tree_of_letters_allows_only_continuations_of_the_word(lists: list[list[str]], draw: random.Random) -> None:
    tokenizer = type(LETTERS).train(["abAB ,"])
    tree, length = tree_of(tokenizer, *lists), draw.randrange(8)
    texts = ["".join(draw.choices("aabbA ,", k=length)) for _ in lists]
    found = valid(tree, [tokenizer.encode(text) for text in texts])
    for words, text, tokens in zip(lists, texts, found, strict=True):
        begun = text.replace(",", " ").rpartition(" ")[2]
        written = {spelling for word in words for spelling in spellings(word)}
        following = {word[len(begun)] for word in written if word.startswith(begun) and word != begun}
        assert tokens == set(tokenizer.encode("".join(following)))


# ---- the pointer ----------------------------------------------------------------------------------------------


class Tied(torch.nn.Module):
    """The parts of a decoder that Copying uses, with states that depend on the last two tokens."""

    def __init__(self, vocab: int, dim: int) -> None:
        super().__init__()
        self.embedding = torch.nn.Embedding(vocab, dim)
        self.output = torch.nn.Linear(dim, vocab)

    def read(self, tokens_BL: Tensor, *others: object) -> tuple[Tensor, list[Tensor]]:
        x_BLD = self.embedding(tokens_BL)
        x_BLD = x_BLD + 0.5 * torch.nn.functional.pad(x_BLD, (0, 0, 1, 0))[:, :-1]
        return x_BLD, []


def wild(pointer: Pointer) -> Pointer:
    """Give the pointer large random weights, so that no term is zero, and return it."""
    draw = torch.Generator().manual_seed(4)
    with torch.no_grad():
        for weight in pointer.parameters():
            weight.copy_(0.7 * torch.randn(weight.shape, generator=draw))
    return pointer


def mixed_by_loop(decoder: Tied, pointer: Pointer, x_D: Tensor, last: int, tokens: set[int]) -> list[float]:
    """Return the mixture's probabilities by the paper's equations, token by token."""
    e = {token: decoder.embedding.weight[token] for token in tokens} | {-1: pointer.outside_D}
    q_A = pointer.state.weight @ x_D + pointer.last.weight @ decoder.embedding.weight[last]
    size = len(q_A)
    energy = {token: math.exp(float(q_A @ (pointer.key.weight @ e[token])) / math.sqrt(size)) for token in e}
    copy = {token: energy[token] / sum(energy.values()) for token in e}
    h_A = sum((copy[token] * (pointer.value.weight @ e[token]) for token in e), start=torch.zeros(size))
    gate = 1 / (1 + math.exp(-float(pointer.gate.weight[0] @ torch.cat([x_D, h_A]) + pointer.gate.bias[0])))
    model = torch.softmax(decoder.output(x_D), 0).tolist()
    left = 1 - gate * (1 - copy[-1])
    return [model[w] * left + (gate * copy[w] if w in tokens else 0.0) for w in range(len(model))]


@torch.no_grad()
def test_mixture_matches_a_plain_loop_and_sums_to_one() -> None:
    torch.manual_seed(3)
    decoder, pointer = Tied(PIECES.vocab_size, 6), wild(Pointer(6, 4))
    tree = tree_of(PIECES, ["a", "a b ab", "ab,"], [], ["b"])
    texts_BL = torch.randint(2, PIECES.vocab_size, (3, 7))
    fed_BL = torch.cat([torch.ones(3, 2, dtype=torch.long), texts_BL], dim=1)
    log_prob_BLV, _ = Copying(decoder, pointer, tree, prefix=2)(fed_BL, None)  # type: ignore[arg-type]
    x_BLD, _ = decoder.read(fed_BL)
    torch.testing.assert_close(log_prob_BLV.exp().sum(-1), torch.ones(3, 9))
    for b, at in itertools.product(range(3), range(9)):
        tokens: set[int] = set()
        if at >= 1:  # no phrase begins within the start tokens
            tokens = valid(tree, texts_BL[:, : at - 1].tolist())[b]
        assert not tokens or b != 1
        expected = mixed_by_loop(decoder, pointer, x_BLD[b, at], int(fed_BL[b, at]), tokens)
        assert log_prob_BLV[b, at].exp().tolist() == pytest.approx(expected, abs=1e-6)


# ---- in search ------------------------------------------------------------------------------------------------


def with_pointer(**decode: object) -> ModelFolder:
    parts = small_model(**decode)  # type: ignore[arg-type]
    parts.model.decoder.pointer = wild(Pointer(32, 16))
    return parts


def heard(parts: ModelFolder, *lengths_s: float) -> Memory:
    audio = noises(*lengths_s)
    return Memory.join([parts.model.encode(x_N[None], torch.tensor([len(x_N)])) for x_N in audio])


LISTS = ["hello", "held", "world"], [], ["hello world", "low", "wed", "red", "ore", "d"]


def of(decoder: Decoder, tree: PhraseTree, prefix: int = 1) -> Copying:
    found = copying(decoder, tree, prefix)
    assert isinstance(found, Copying)
    return found


@torch.no_grad()
def test_incremental_decoding_with_reordering_matches_full_decoding() -> None:
    parts, K = with_pointer(), 4
    memory, reader = heard(parts, 0.4, 1.1, 0.7), of(parts.model.decoder, tree_of(parts.tokenizer, *LISTS))
    draw = torch.Generator().manual_seed(1)
    fed_NL = torch.full((3, 1), parts.tokenizer.start_id)
    log_prob_NV, state = reader.step(fed_NL, reader.start(memory))
    moved_N, copied = torch.arange(3).repeat_interleave(K), 0
    letters = torch.tensor(parts.tokenizer.encode("held wor"))
    for _ in range(8):
        token_N = letters[torch.randint(len(letters), (3 * K,), generator=draw)]
        fed_NL = torch.cat([fed_NL[moved_N], token_N[:, None]], dim=1)
        log_prob_NV, state = reader.step(token_N[:, None], reader.reorder(state, moved_N))
        for n, fed_L in enumerate(fed_NL):
            own = Memory(*(x[n // K : n // K + 1] for x in memory))
            alone = of(parts.model.decoder, tree_of(parts.tokenizer, LISTS[n // K]))
            expected_1LV, _ = alone(fed_L[None], own)
            torch.testing.assert_close(log_prob_NV[n], expected_1LV[0, -1], atol=1e-5, rtol=1e-5)
            plain_1LV, _ = parts.model.decoder(fed_L[None], own)
            copied += not torch.allclose(log_prob_NV[n], plain_1LV[0, -1].log_softmax(-1), atol=1e-4)
        moved_N = torch.cat([b * K + torch.randint(K, (K,), generator=draw) for b in range(3)])
    assert copied > 10


@torch.no_grad()
@pytest.mark.parametrize("beam", [1, 3])
def test_batched_search_with_different_lists_matches_single_searches(beam: int) -> None:
    parts = with_pointer()
    memory, eos_id = heard(parts, 0.4, 1.1, 0.7), parts.tokenizer.eos_id

    def found(reader: Decoder | Copying, some: Memory) -> list[tuple[tuple[int, ...], float]]:
        starts = torch.full((len(some.len_B), 1), parts.tokenizer.start_id)
        texts = search([Weighted("a", reader, 1.0)], some, starts, eos_id, [12] * len(starts), SearchOptions(beam))
        return [(best.tokens, pytest.approx(best.score, abs=1e-5)) for best, *_ in texts]

    together = found(of(parts.model.decoder, tree_of(parts.tokenizer, *LISTS)), memory)
    for b, words in enumerate(LISTS):
        own = Memory(*(x[b : b + 1] for x in memory))
        assert found(of(parts.model.decoder, tree_of(parts.tokenizer, words)), own) == together[b : b + 1]
        if not words:
            assert found(parts.model.decoder, own) == together[b : b + 1]
    assert together != found(parts.model.decoder, memory)


def test_no_list_or_an_empty_list_does_not_change_the_decoder() -> None:
    parts = with_pointer()
    decoder, memory = parts.model.decoder, heard(parts, 0.5)
    assert copying(decoder, None) is decoder
    without = small_model().model.decoder
    assert copying(without, tree_of(parts.tokenizer, ["low"])) is without
    fed_BL = torch.tensor([[parts.tokenizer.start_id, *parts.tokenizer.encode("hello")]])
    plain_BLV, _ = decoder(fed_BL, memory)
    empty_BLV, _ = of(decoder, tree_of(parts.tokenizer, []))(fed_BL, memory)
    torch.testing.assert_close(empty_BLV, plain_BLV.log_softmax(-1), atol=1e-6, rtol=0)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_hotwords_reach_the_pointer_even_with_a_bonus_of_zero(tmp_path: Path, precision: Precision) -> None:
    names = tmp_path / "names.txt"
    names.write_text("hello\n")
    (audio_N,) = noises(1.0)
    texts = []
    for options in ({}, {"phrases": names, "phrase_bonus": 0}):
        parts = small_model(**options)
        pointer = parts.model.decoder.pointer = Pointer(32, 16)
        torch.nn.init.constant_(pointer.gate.bias, 20.0)
        torch.nn.init.zeros_(pointer.state.weight)  # all valid tokens are equally likely: a path of the list wins
        decoded = Recognizer(parts, precision=precision).decode(audio_N[None], torch.tensor([len(audio_N)]))
        texts.append(parts.tokenizer.decode(list(decoded[0][0].tokens)))
    assert "hell" not in texts[0]
    assert "hell" in texts[1]


def test_pointer_replaces_the_phrase_bonus_unless_one_is_given(tmp_path: Path) -> None:
    names = tmp_path / "names.txt"
    names.write_text("hello\n")
    (audio_N,) = noises(0.5)
    for made, bonus, expected in ((small_model, None, True), (with_pointer, None, False), (with_pointer, 0.5, True)):
        recognizer = Recognizer(made(phrases=names, phrase_bonus=bonus))
        ((hypothesis,),) = recognizer.decode(audio_N[None], torch.tensor([len(audio_N)]))
        assert ("phrases" in hypothesis.parts) == expected


# ---- lists to train with --------------------------------------------------------------------------------------

TEXTS = ["Call Zoë, or the office.", "The office called.", "call the office", "the-end or Max's"]


def rare_words(keep: float, distractors: tuple[int, int] = (1, 3)) -> RareWords:
    config = PhraseListConfig(rare_below=3, keep=keep, distractors=distractors)
    return RareWords(config, 7, TEXTS, CharacterTokenizer.train([*TEXTS, "CMOZT"]))


def test_rare_words_occur_seldom_and_can_be_spelled() -> None:
    assert rare_words(1.0).rare == sorted(["Zoë", "Call", "or", "called", "the-end", "Max's"])
    narrow = RareWords(PhraseListConfig(rare_below=2), 7, TEXTS, CharacterTokenizer.train(["the-nd"]))
    assert narrow.rare == ["the-end"]
    with pytest.raises(ConfigError, match=r"^data\.phrases: no word of the training texts occurs less than 1 times$"):
        RareWords(PhraseListConfig(rare_below=1), 7, TEXTS, CharacterTokenizer.train(TEXTS))


def test_lists_hold_some_of_the_utterances_rare_words_and_distractors() -> None:
    text, kept = "the office called Zoë Newman", 0
    lists = rare_words(0.5)
    for epoch in range(200):
        drawn = lists.drawn(text, "a", epoch)
        own = [word for word in drawn if word in text]
        kept += len(own)
        assert set(own) <= {"called", "Zoë"}, "Newman cannot be written: the letter w is not in the vocabulary"
        assert len(set(drawn)) == len(drawn)
        assert 1 <= len(drawn) - len(own) <= 3
    assert 160 < kept < 240
    assert rare_words(1.0, (0, 0)).drawn(text, "a", 0) == ["called", "Zoë"]
    assert set(rare_words(0.0, (9, 9)).drawn(text, "a", 0)) == set(lists.rare) - {"called", "Zoë"}


def test_lists_are_reproducible_and_vary_by_epoch_and_utterance() -> None:
    lists = rare_words(0.5)
    assert lists.drawn(TEXTS[0], "a", 3) == rare_words(0.5).drawn(TEXTS[0], "a", 3)
    assert len({tuple(lists.drawn(TEXTS[0], id, epoch)) for id in "abcd" for epoch in range(4)}) > 8


# ---- training -------------------------------------------------------------------------------------------------


def test_loss_does_not_depend_on_other_lists_in_the_batch(path: Path) -> None:
    task, data = prepared(path, *WITH_LISTS)
    task.eval()
    pointer = task.model.decoder.pointer
    assert pointer is not None
    wild(pointer)
    cuts = list(data.train_cuts)[:6]
    together = task.criteria(task.dev_pass(data.dev_batch(cuts)))["ce"].detach()
    for b, cut in enumerate(cuts):
        alone = data.dev_batch([cut])
        assert alone.phrases is not None
        (value,) = task.criteria(task.dev_pass(alone))["ce"].detach()
        torch.testing.assert_close(together[b], value, atol=1e-4, rtol=1e-5)
        (without,) = task.criteria(task.dev_pass(replace(alone, phrases=None)))["ce"].detach()
        assert abs(float(value - without)) > 1e-3


def test_training_the_pointer_alone_updates_all_its_weights(path: Path) -> None:
    frozen = "optimizer.parts={encoder: 0, decoder: 0, ctc: 0, decoder.pointer: 1}"
    task, data = prepared(path, *WITH_LISTS, frozen, "trainer.max_steps=2", "loss.guided_attention.weight=0")
    before = {name: weight.detach().clone() for name, weight in task.model.named_parameters()}
    fit(task, data)
    moved = {name for name, weight in task.model.named_parameters() if not torch.equal(weight, before[name])}
    assert moved == {name for name in before if name.startswith("decoder.pointer.")}


def test_a_resumed_run_equals_an_uninterrupted_one(path: Path, tmp_path: Path) -> None:
    options = (*WITH_LISTS, "trainer.max_epochs=null", "trainer.plot_utterances=0", "trainer.save_every_steps=2")
    weights = []
    for out, starts in ((tmp_path / "whole", [4]), (tmp_path / "parts", [2, 4])):
        for most in starts:
            folder = train(experiment(path, *options, f"out={out}", f"trainer.max_steps={most}"), Console(quiet=True))
        weights.append((folder / "model.safetensors").read_bytes())
    steps = [[(row["ids"], row["loss"]) for row in logged_steps(tmp_path / out)] for out in ("whole", "parts")]
    assert steps[0] == steps[1]
    assert len(steps[0]) == 4
    assert weights[0] == weights[1]
    assert load_model_folder(folder).model.decoder.pointer is not None


def test_adapt_adds_a_pointer_to_the_initial_model(path: Path, tmp_path: Path) -> None:
    parts = untrained(experiment(path))
    save_model_folder(tmp_path / "before", parts)
    brought = ("features", "model", "tokenizer")
    tree = {key: value for key, value in yaml.safe_load(path.read_text()).items() if key not in brought}
    (tmp_path / "run.yaml").write_text(yaml.safe_dump({**tree, "init": str(tmp_path / "before")}))
    adapted = starting_point(experiment(tmp_path / "run.yaml", "adapt.pointer={size: 8}", *WITH_LISTS[1:]))
    assert adapted.config.model.decoder.pointer == PointerConfig(size=8)
    own = {name: x for name, x in adapted.model.state_dict().items() if not name.startswith("decoder.pointer.")}
    before = parts.model.state_dict()
    assert own.keys() == before.keys()
    assert all(torch.equal(own[name], before[name]) for name in before)
    save_model_folder(tmp_path / "after", adapted)
    again = tmp_path / "run.yaml", f"init={tmp_path / 'after'}"
    with pytest.raises(ConfigError, match="the model that init brings has a pointer already"):
        starting_point(experiment(*again, "adapt.pointer={}", *WITH_LISTS[1:]))
    with pytest.raises(ConfigError, match=r"adapt\.pointer learns nothing without lists: set data\.phrases"):
        experiment(*again, "adapt.pointer={}")
    assert starting_point(experiment(*again, *WITH_LISTS[1:])).config.model == adapted.config.model
    with pytest.raises(ConfigError, match=r"data\.phrases is for a decoder with a pointer"):
        starting_point(experiment(tmp_path / "run.yaml", *WITH_LISTS[1:]))


@pytest.mark.parametrize(
    ("override", "problem"),
    [
        ("data.phrases={}", "data.phrases is for a decoder with a pointer: set model.decoder.pointer or adapt.pointer"),
        ("model.decoder.pointer={}", "model.decoder.pointer learns nothing without lists: set data.phrases"),
        ("data.phrases={distractors: [3, 2]}", "'data.phrases': distractors: the fewest, 3, are more than the most, 2"),
        ("data.phrases={keep: 2}", "'data.phrases.keep': Input should be less than or equal to 1, got 2"),
        ("model.decoder.pointer={size: 0}", "'model.decoder.pointer.size': Input should be greater than 0, got 0"),
        ("adapt.pointer={}", "adapt is for the model that init brings"),
    ],
)
def test_inconsistent_settings_are_refused_in_one_line(path: Path, override: str, problem: str) -> None:
    with pytest.raises(ConfigError) as caught:
        experiment(path, override)
    assert problem in str(caught.value)
    assert str(caught.value).isprintable()
