"""Minimum error training of a model so small that all its possible texts can be enumerated."""

from __future__ import annotations

import copy
import itertools
import math
from collections import Counter
from collections.abc import Iterator, Sequence

import jiwer
import pytest
import sacrebleu
import torch
from synthetic import experiment, experiment_file
from torch import Tensor

from asr import losses
from asr.checkpoint import ModelFolder
from asr.config import MinimumErrorConfig, ModelFolderConfig
from asr.data.augment import derived_random
from asr.data.batch import Batch, Example, collate
from asr.decode.search import Hypothesis
from asr.model.build import build_model
from asr.model.layers import Dropout
from asr.tokenizer import CharacterTokenizer
from asr.training.criteria import Pass
from asr.training.criteria.errors import Errors
from asr.training.criteria.minimum_error import ExpectedErrors, JointScores, Policy, SelfCritical

LETTERS = " ab"
TOKENIZER = CharacterTokenizer.train([LETTERS], ("en", "es"))
TEXTS = {"x": ("a", "es"), "y": ("b", "en"), "z": ("", "en")}
CAP = 3  # token limit of "x" and "y"; that of "z" is 1
POLICY = Policy(TOKENIZER, max_length=448, spare=1)
BLANK = TOKENIZER.blank_id
assert BLANK is not None
JOINT = JointScores(POLICY, 0.4, BLANK)


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> ModelFolder:
    config = experiment(experiment_file(tmp_path_factory.mktemp("corpus"), 1, 1))
    torch.manual_seed(3)
    model = build_model(config.features, config.model, TOKENIZER.vocab_size).eval()
    for weight in model.parameters():
        weight.data.mul_(2.0)
    return ModelFolder(ModelFolderConfig(features=config.features, model=config.model), model, TOKENIZER)


def batch_of(*ids: str) -> Batch:
    examples = []
    for id in ids:
        text, language = TEXTS[id]
        audio_N = torch.randn(4000 + 900 * ord(id) % 3000, generator=torch.Generator().manual_seed(ord(id)))
        prefix = TOKENIZER.prefix(language)
        tokens = [*prefix, *TOKENIZER.encode(text), TOKENIZER.eos_id]
        examples.append(Example(id, audio_N, text, tokens, len(prefix), tokens[len(prefix) : -1], language=language))
    return collate(examples)


def passing(toy: ModelFolder, *ids: str) -> Pass:
    batch = batch_of(*ids)
    return Pass(toy.model, batch, toy.model.front_end(batch.audio_BN, batch.audio_len_B))


def every_text(cap: int) -> Iterator[Hypothesis]:
    letters = TOKENIZER.encode(LETTERS)
    for length in range(cap + 1):
        for tokens in itertools.product(letters, repeat=length):
            yield Hypothesis(tokens, 0.0, {}, truncated=length == cap)


def probability(toy: ModelFolder, id: str, text: Hypothesis) -> Tensor:
    """Return the probability of a text, token by token, among the letters and the end token."""
    run = passing(toy, id)
    said = [*TOKENIZER.encode(LETTERS), TOKENIZER.eos_id]
    fed, p = TOKENIZER.prefix(TEXTS[id][1]), torch.ones(())
    for token in (*text.tokens, *(() if text.truncated else (TOKENIZER.eos_id,))):
        logits_V = toy.model.decoder(torch.tensor([fed]), run.memory)[0][0, -1]
        p = p * logits_V[said].softmax(-1)[said.index(token)]
        fed = [*fed, token]
    return p


def ctc_probability(toy: ModelFolder, id: str, tokens: Sequence[int]) -> Tensor:
    """Return the probability of a text by CTC, frame by frame: the sum over the paths that spell it."""
    run = passing(toy, id)
    prob_TV = run.ctc_BTV[0, : int(run.memory.len_B)].exp().double()
    spelled = [BLANK, *(symbol for token in tokens for symbol in (token, BLANK))]
    at = [torch.ones((), dtype=torch.double), *[torch.zeros((), dtype=torch.double)] * len(spelled)]  # 0: not begun
    for prob_V in prob_TV:
        before, at = at, [torch.zeros((), dtype=torch.double)]
        for place, symbol in enumerate(spelled, 1):
            into = before[place] + before[place - 1]
            if place == 2 or (place > 2 and symbol not in (BLANK, spelled[place - 3])):
                into = into + before[place - 2]
            at.append(into * prob_V[symbol])
    return at[-1] + (at[-2] if tokens else 0.0)


def words_wrong(id: str, text: Hypothesis) -> int:
    reference, said = TEXTS[id][0], TOKENIZER.decode(text.tokens).split()
    if not reference:
        return len(said)
    out = jiwer.process_words(reference, " ".join(said))
    return out.substitutions + out.deletions + out.insertions


def gradient(toy: ModelFolder, loss: Tensor) -> Tensor:
    weights = [w for w in toy.model.parameters() if w.requires_grad]
    found = torch.autograd.grad(loss, weights, allow_unused=True, retain_graph=True)
    pairs = zip(weights, found, strict=True)
    return torch.cat([torch.zeros_like(w).flatten() if g is None else g.flatten() for w, g in pairs])


def test_risk_over_all_texts_is_the_exact_expectation(toy: ModelFolder) -> None:
    """Over the texts that end before the cap, which are all that the search returns."""
    config = MinimumErrorConfig(weight=1, n_best=40)
    value_B = ExpectedErrors(config, POLICY, Errors("wer", "none"))(passing(toy, "x", "y", "z"))
    for b, id in enumerate(("x", "y")):
        ended = [text for text in every_text(CAP) if not text.truncated]
        assert len(ended) == 13
        p = torch.stack([probability(toy, id, text) for text in ended])
        wrong = torch.tensor([float(words_wrong(id, text)) for text in ended])
        expected = (p * wrong).sum() / p.sum()
        assert value_B[b].item() == pytest.approx((expected - wrong.mean()).item(), abs=1e-5)
        ours, theirs = gradient(toy, value_B[b]), gradient(toy, expected)
        assert theirs.norm() > 1e-3
        torch.testing.assert_close(ours, theirs, atol=3e-5, rtol=1e-3)
    assert value_B[2].item() == 0.0, "a single text has no risk relative to others"


def joint_risk(toy: ModelFolder, id: str, texts: Sequence[Hypothesis]) -> Tensor:
    """Return the expected errors of texts, with their joint probabilities renormalised over them."""
    c = JOINT.ctc_weight
    p = torch.stack([probability(toy, id, h) ** (1 - c) * ctc_probability(toy, id, h.tokens) ** c for h in texts])
    return (p * torch.tensor([float(words_wrong(id, text)) for text in texts])).sum() / p.sum()


def test_joint_risk_over_all_texts_is_the_exact_expectation(toy: ModelFolder) -> None:
    config = MinimumErrorConfig(weight=1, n_best=40, ctc_weight=0.4)
    value_B = ExpectedErrors(config, JOINT, Errors("wer", "none"))(passing(toy, "x", "y", "z"))
    ended = [text for text in every_text(CAP) if not text.truncated]
    for b, id in enumerate(("x", "y")):
        expected = joint_risk(toy, id, ended)
        mean = sum(words_wrong(id, text) for text in ended) / len(ended)
        assert value_B[b].item() == pytest.approx(expected.item() - mean, abs=1e-5)
        ours, theirs = gradient(toy, value_B[b]), gradient(toy, expected)
        torch.testing.assert_close(ours, theirs.float(), atol=3e-5, rtol=1e-3)
        for part in ("ctc", "decoder", "encoder"):
            weights = [w for name, w in toy.model.named_parameters() if name.startswith(part) and w.requires_grad]
            pushed = torch.autograd.grad(value_B[b], weights, allow_unused=True, retain_graph=True)
            assert max(float(each.norm()) for each in pushed if each is not None) > 1e-4
    assert value_B[2].item() == 0.0


def test_joint_search_ranks_texts_by_both_scores(toy: ModelFolder) -> None:
    found, alone = (scores.best(passing(toy, "x"), 40)[0] for scores in (JOINT, POLICY))
    assert sorted(h.tokens for h in found) == sorted(h.tokens for h in alone)
    assert [h.tokens for h in found] != [h.tokens for h in alone]
    by_decoder = {h.tokens: h.parts["attention"] for h in alone}
    for text in found:
        log_ctc = ctc_probability(toy, "x", text.tokens).log().item()
        assert text.score == pytest.approx(0.6 * by_decoder[text.tokens] + 0.4 * log_ctc, abs=1e-4)


def test_joint_scores_do_not_depend_on_the_batch(toy: ModelFolder) -> None:
    run = passing(toy, "x", "y", "z")
    assert len(set(run.memory.len_B.tolist())) == 3
    found = JOINT.best(run, 40)
    assert [len(texts) for texts in found] == [13, 13, 1]
    scores_BN = JOINT.log_probs(run, found)
    for b, id in enumerate(("x", "y", "z")):
        alone = passing(toy, id)
        assert [h.tokens for h in JOINT.best(alone, 40)[0]] == [h.tokens for h in found[b]]
        own_N = JOINT.log_probs(alone, found[b : b + 1])[0]
        torch.testing.assert_close(scores_BN[b, : len(own_N)], own_N, atol=1e-5, rtol=1e-5)
        assert bool((scores_BN[b, len(own_N) :] == -math.inf).all())


@pytest.mark.parametrize("frames", [2, 1])
def test_texts_that_do_not_fit_into_the_frames_of_ctc_are_left_out(toy: ModelFolder, frames: int) -> None:
    """With one frame none of them fits, and the utterance has no risk."""
    run = passing(toy, "x")
    run.memory = run.memory._replace(len_B=torch.tensor([frames]))
    a, b = TOKENIZER.encode("ab")
    found = [[Hypothesis(tokens, 0.0, {}) for tokens in ((a, b), (b, a), (a, a), (a, b, a))]]
    scores_BN = JOINT.log_probs(run, found)
    assert scores_BN.isfinite().tolist() == [[frames == 2, frames == 2, False, False]]
    value_B = losses.expected_errors(scores_BN, torch.tensor([[0.0, 1.0, 2.0, 3.0]]))
    pushed = gradient(toy, value_B.sum())
    assert bool(pushed.isfinite().all())
    assert (value_B.item() != 0.0) == (float(pushed.norm()) > 0.0) == (frames == 2)


def test_log_probs_do_not_depend_on_dropout_or_the_batch(toy: ModelFolder) -> None:
    toy = ModelFolder(toy.config, copy.deepcopy(toy.model), TOKENIZER)
    for module in toy.model.decoder.modules():
        if isinstance(module, Dropout):
            module.p = 0.5
    run = passing(toy, "x", "y")
    found = POLICY.samples(run, 3)
    expected = POLICY.log_probs(run, found).detach()
    toy.model.decoder.train()
    again = POLICY.log_probs(run, found)
    assert toy.model.decoder.layers[0].training
    toy.model.decoder.eval()
    assert torch.equal(again, expected)
    alone = [POLICY.log_probs(passing(toy, id), found[b : b + 1])[0] for b, id in enumerate(("x", "y"))]
    torch.testing.assert_close(again[:, :1], torch.stack(alone)[:, :1], atol=1e-5, rtol=1e-5)


class Given(Policy):
    """A policy that always samples the given text."""

    text: Hypothesis

    def samples(self, run: Pass, count: int) -> list[list[Hypothesis]]:
        return [[self.text] for _ in run.batch.ids]


def test_mean_self_critical_gradient_is_that_of_the_expected_errors(toy: ModelFolder) -> None:
    config = MinimumErrorConfig(kind="self_critical", weight=1, n_best=1)
    policy = Given(TOKENIZER, max_length=448, spare=1)
    criterion = SelfCritical(config, policy, Errors("wer", "none"))
    texts = list(every_text(CAP))
    p = torch.stack([probability(toy, "x", text) for text in texts])
    assert len(texts) == 40
    assert p.sum().item() == pytest.approx(1.0, abs=1e-5)
    wrong = torch.tensor([float(words_wrong("x", text)) for text in texts])
    expected = gradient(toy, (p * wrong).sum())
    run, mean = passing(toy, "x"), torch.zeros_like(expected)
    for share, policy.text in zip(p.tolist(), texts, strict=True):
        mean += share * gradient(toy, criterion(run)[0])
    assert expected.norm() > 1e-3
    torch.testing.assert_close(mean, expected, atol=3e-5, rtol=1e-3)
    greedy = policy.best(run, 1)[0][0]
    assert TOKENIZER.decode(greedy.tokens) == most_probable_letters(toy, "x")


def test_self_critical_baseline_is_the_errors_of_the_greedy_text(toy: ModelFolder) -> None:
    """Text by text, as a baseline changes nothing in the mean over all."""
    config = MinimumErrorConfig(kind="self_critical", weight=1, n_best=1)
    policy = Given(TOKENIZER, max_length=448, spare=1)
    criterion = SelfCritical(config, policy, Errors("cer", "none"))
    run = passing(toy, "x")
    texts = [policy.best(run, 1)[0][0], *every_text(CAP)]
    greedy, *wrong = (criterion._errors(run, [[text]]).item() for text in texts)
    assert {errors > greedy for errors in wrong} == {False, True}
    for policy.text, errors in zip(texts[1:], wrong, strict=True):
        expected = (errors - greedy) * probability(toy, "x", policy.text).log()
        torch.testing.assert_close(criterion(run)[0], expected, atol=1e-4, rtol=1e-4)


def most_probable_letters(toy: ModelFolder, id: str) -> str:
    text = ""
    while len(text) < CAP:
        begun = [Hypothesis(tuple(TOKENIZER.encode(text + letter)), 0.0, {}, truncated=True) for letter in LETTERS]
        found = [probability(toy, id, text).item() for text in begun]
        ended = Hypothesis(tuple(TOKENIZER.encode(text)), 0.0, {})
        if probability(toy, id, ended) > max(found):
            break
        text += LETTERS[found.index(max(found))]
    return text


def test_samples_follow_the_model_and_do_not_depend_on_the_batch(toy: ModelFolder) -> None:
    run = passing(toy, "x", "y", "z")
    run.draws = lambda purpose, id: derived_random(5, purpose, id)
    found = POLICY.samples(run, 3000)
    counts = Counter(h.tokens + (() if h.truncated else (TOKENIZER.eos_id,)) for h in found[0])
    for text in every_text(CAP):
        p = probability(toy, "x", text).item()
        share = counts[text.tokens + (() if text.truncated else (TOKENIZER.eos_id,))] / 3000
        assert abs(share - p) < 4.5 * math.sqrt(p * (1 - p) / 3000) + 1e-9
    alone = passing(toy, "y")
    alone.draws = run.draws
    assert [h.tokens for h in POLICY.samples(alone, 5)[0]] == [h.tokens for h in POLICY.samples(run, 5)[1]]
    assert all(len(h.tokens) <= 1 for h in found[2])


def test_errors_of_a_text_in_each_metric() -> None:
    assert Errors("wer", "basic")("one two", "en", ["One, TWO ", "one", "two two three", ""]) == [0, 1, 2, 2]
    assert Errors("cer", "basic")("ab c", "en", ["AB c", "abc", "b"]) == [0, 1, 3]
    assert Errors("wer", "spoken")("three", "en", ["3"]) == [0]
    reference, said = "the cat is on the mat", "the cat sat on the mat"
    expected = 1 - sacrebleu.sentence_bleu(said, [reference]).score / 100
    assert Errors("bleu", "none")(reference, "en", [said, reference]) == pytest.approx([expected, 0.0])
    near, far = Errors("bleu", "none")("我们今天去公园玩", "zh", ["我们今天去公园", "猫"])
    assert near < 0.2 < 0.9 < far
