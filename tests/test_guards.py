"""The guards on made-up search results: which texts are accepted, cut, dropped or searched again."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from models import noises, small_model, sources

from asr.config import GuardConfig
from asr.data.batch import pad_audio
from asr.evidence import Evidence
from asr.guards import Found, Guarded, advances, compression_ratio, first_round, guarded, silent
from asr.recognizer import Recognizer, batch
from asr.transcript import Transcript
from asr.writers import TranscriptWriter

OPTIONS = GuardConfig()
FRAMES = 100
BEYOND = FRAMES + 7
WORDS = (11, 12, 13, 14, 15, 16)
HEARD = (5, 20, 30, 44, 60, 80)


def found(tokens: Sequence[int], log_prob: float = -0.2, *, truncated: bool = False, score: float = 0.0) -> Found:
    return Found(tokens, " ".join(map(str, tokens)), log_prob, truncated, score)


def evidence(positions: Sequence[int], no_speech: float | None = 0.1, log_prob: float = -0.2) -> Evidence:
    return Evidence(positions, FRAMES, [log_prob] * len(positions), no_speech)


def never(*args: object) -> list[Found]:
    raise AssertionError("must not be called")


def tells(*answers: Evidence) -> Callable[[Sequence[int], Sequence[Found]], list[Evidence]]:
    """Return a listener that answers for window i with the i-th answer."""
    return lambda windows, texts: [answers[i] for i in windows]


def one(text: Found, answer: Evidence, **options: object) -> Guarded:
    (result,) = guarded([text], never, None, tells(answer), GuardConfig(temperatures=(), **options))
    return result


def test_probable_texts_are_accepted_without_evidence() -> None:
    texts = [found(WORDS, -0.69), found((), -5.0), found((7, 8) * 3 + (9,))]
    assert guarded(texts, never, None, never, OPTIONS) == [Guarded(tuple(t.tokens), t.log_prob) for t in texts]


def test_doubtful_text_that_was_heard_is_kept() -> None:
    result = one(found(WORDS, -1.4, truncated=True), evidence(HEARD, 0.55))
    assert result == Guarded(WORDS, -1.4, True, 0.55, ())


@pytest.mark.parametrize(
    ("log_prob", "no_speech", "guards"),
    [(-1.1, 0.7, ("no_speech",)), (-0.9, 0.7, ()), (-1.1, 0.5, ()), (-2.1, 0.1, ("improbable",)), (-1.9, None, ())],
)
def test_improbable_texts_are_dropped_sooner_if_speech_is_unlikely(
    log_prob: float, no_speech: float | None, guards: tuple[str, ...]
) -> None:
    result = one(found(WORDS, log_prob), evidence(HEARD, no_speech))
    assert result.guards == guards
    assert result.tokens == (() if guards else WORDS)
    assert result.no_speech == no_speech


@pytest.mark.parametrize("positions", [(40,) * 6, (BEYOND,) * 6, (90, 70, 50, 40, 20, 1), (BEYOND, 3, BEYOND, 2, 1, 1)])
def test_text_heard_nowhere_in_the_recording_is_dropped(positions: tuple[int, ...]) -> None:
    assert one(found(WORDS, -0.8), evidence(positions)).guards == ("unheard",)


def test_single_word_is_dropped_only_on_stronger_evidence() -> None:
    assert one(found((7,), -0.8), evidence((BEYOND,), 0.3)).guards == ("unheard",)
    assert one(found((7,), -0.8), evidence((BEYOND,), 0.1)).guards == ()
    assert one(found((7,), -0.8), evidence((40,), 0.3)).guards == ()


def test_text_is_cut_where_attention_stops_advancing() -> None:
    tokens = (*WORDS, *range(21, 29))
    result = one(found(tokens, -0.8, truncated=True), evidence((*HEARD, *[80] * 4, *[BEYOND] * 4), log_prob=-0.3))
    assert result == Guarded(WORDS, pytest.approx(-0.3), False, 0.1, ("loop_cut",))
    assert one(found(tokens[:-1], -0.8), evidence((*HEARD, *[80] * 7))).guards == ()


def test_loop_is_cut_after_its_first_round() -> None:
    tokens = (*WORDS, *(21, 22, 23) * 20, 21)
    positions = (*HEARD, 85, 90, 95, 96, 97, *[97] * 56)
    assert one(found(tokens, -0.1), evidence(positions)).tokens == tokens[:9]
    # A loop during which attention does not advance is dropped as a whole.
    assert one(found((21, 22) * 30), evidence((1, 2, *[2] * 58))).guards == ("unheard",)


def test_heard_repetition_is_kept_unless_implausibly_long() -> None:
    tokens = (21, 22) * 5
    assert one(found(tokens), evidence(range(0, 50, 5))) == Guarded(tokens, -0.2, False, 0.1, ())
    tokens = (21, 22) * 50  # more often than anybody says them
    assert compression_ratio(found(tokens).text) > OPTIONS.compression_ratio
    result = one(found(tokens), Evidence(range(100), FRAMES, [-0.2] * 100))
    assert result.guards == ("unheard",)
    tokens = (*WORDS, *tokens)
    assert one(found(tokens), Evidence(range(106), 110, [-0.2] * 106)).tokens == (*WORDS, 21, 22)
    # What counts is whether the text that is left after the cut was heard.
    assert one(found(tokens), Evidence([2] * 8 + [*range(98)], 110, [-0.2] * 106)).guards == ("unheard",)


def test_loop_is_sampled_again_until_a_text_is_accepted() -> None:
    loop = found((*WORDS, *[9] * 30))
    bad, improbable, good = found((*WORDS, *[8] * 30)), found(WORDS, -1.2), found(WORDS[::-1], -0.9)
    asked: list[tuple[list[int], float]] = []

    def redo(windows: Sequence[int], temperature: float) -> list[Found]:
        asked.append((list(windows), temperature))
        answers = {1: [good], 3: [bad, improbable, good]}
        return [answers[i][min(len(asked) - 1, len(answers[i]) - 1)] for i in windows]

    def listen(windows: Sequence[int], texts: Sequence[Found]) -> list[Evidence]:
        return [evidence([*HEARD, *[80] * 30][: len(text.tokens)], log_prob=-0.4) for text in texts]

    results = guarded([found(WORDS), loop, found(WORDS, -1.1), loop], redo, None, listen, OPTIONS)
    assert asked == [([1, 3], 0.2), ([3], 0.4), ([3], 0.6)]
    assert [r.guards for r in results] == [(), ("fallback:0.2",), (), ("fallback:0.6",)]
    assert results[1] == Guarded(WORDS[::-1], -0.9, False, 0.1, ("fallback:0.2",))


def test_loop_is_cut_if_no_sample_is_accepted() -> None:
    loop = found((*WORDS, *[9] * 30), truncated=True)
    samples = iter([found((*WORDS, *[8] * 30)), found(()), found(WORDS, -1.01), found((5,) * 40), found((7,), -3.0)])
    asked = []

    def redo(windows: Sequence[int], temperature: float) -> list[Found]:
        asked.append(temperature)
        return [next(samples)]

    def listen(windows: Sequence[int], texts: Sequence[Found]) -> list[Evidence]:
        return [evidence([*HEARD, *[80] * 34][: len(text.tokens)], 0.3, log_prob=-0.4) for text in texts]

    (result,) = guarded([loop], redo, None, listen, OPTIONS)
    assert asked == [0.2, 0.4, 0.6, 0.8, 1.0]
    assert result == Guarded(WORDS, pytest.approx(-0.4), False, 0.3, ("loop_cut",))


cases = st.tuples(
    st.lists(st.integers(0, 3), max_size=20),
    st.floats(-3, 0),
    st.booleans(),
    st.lists(st.integers(0, 120), min_size=20),
)


@given(st.lists(cases, max_size=5))
def test_windows_are_judged_independently(drawn: list[tuple[list[int], float, bool, list[int]]]) -> None:
    texts = [found(tokens, log_prob, truncated=truncated) for tokens, log_prob, truncated, _ in drawn]

    def ask(windows: Sequence[int]) -> list[Guarded]:
        def redo(rows: Sequence[int], temperature: float) -> list[Found]:
            return [found(texts[windows[r]].tokens[: int(20 * temperature) % 7], -temperature) for r in rows]

        def listen(rows: Sequence[int], texts: Sequence[Found]) -> list[Evidence]:
            return [evidence(drawn[windows[r]][3][: len(t.tokens)], 0.4) for r, t in zip(rows, texts, strict=True)]

        def widen(rows: Sequence[int]) -> list[Found]:
            return [found(texts[windows[r]].tokens[1:], score=-0.5 - texts[windows[r]].log_prob) for r in rows]

        return guarded([texts[w] for w in windows], redo, widen, listen, OPTIONS)

    assert ask(range(len(texts))) == [ask([w])[0] for w in range(len(texts))]


@given(st.lists(st.integers(0, 9), max_size=9), st.integers(0, 10))
def test_advances_count_the_longest_rising_subsequence(positions: list[int], frames: int) -> None:
    def longest(part: list[int]) -> int:
        runs = itertools.chain.from_iterable(itertools.combinations(part, n) for n in range(len(part) + 1))
        rising = [r for r in runs if all(a < b for a, b in itertools.pairwise(r)) and all(p < frames for p in r)]
        return max(map(len, rising))

    count, last = advances(positions, frames)
    assert count == longest(positions)
    assert last == min(n for n in range(len(positions) + 1) if longest(positions[:n]) == count)


@given(st.lists(st.integers(0, 1), max_size=16), st.integers(2, 4))
def test_first_round_finds_repetitions_at_the_end(tokens: list[int], times: int) -> None:
    def loops(kept: int, size: int) -> bool:
        same = kept >= size and all(tokens[i] == tokens[i - size] for i in range(kept, len(tokens)))
        return same and len(tokens) - kept >= (times - 1) * size

    kept = [k for k in range(len(tokens)) for size in range(1, 9) if loops(k, size)]
    assert first_round(tokens, times) == min(kept, default=len(tokens))


def test_rounds_longer_than_eight_tokens_are_not_a_loop() -> None:
    assert first_round([*range(8)] * 4, 4) == 8
    assert first_round([*range(9)] * 4, 4) == 36


def test_silence_is_judged_by_the_peak_within_the_real_length() -> None:
    audio_BN = torch.zeros(4, 1000)
    audio_BN[1, 3] = 0.001  # -60 dB
    audio_BN[2, :] = 0.0001  # -80 dB
    audio_BN[3, 900] = 0.5  # after the end of the recording
    assert silent(audio_BN, torch.tensor([1000, 1000, 1000, 900]), OPTIONS).tolist() == [True, False, True, True]
    assert silent(torch.zeros(1, 0), torch.tensor([0]), OPTIONS).tolist() == [True]
    assert math.isclose(compression_ratio(""), 0.0)


# ---- a wider beam for improbable texts ---------------------------------------------------------------------------


def test_improbable_text_is_replaced_by_a_better_one() -> None:
    texts = [
        found(WORDS, -0.49, score=-9.0),  # probable enough
        found(WORDS, -0.6, score=-0.6),
        found(WORDS, -0.6, score=-0.6),  # nothing better is found
        found(WORDS, -0.6, score=-0.6),  # the same text with a slightly higher score
        found(WORDS, -0.8, score=-0.8),  # heard nowhere: dropped and not searched again
    ]
    better = found((*WORDS, 17), -0.4, truncated=True, score=-0.4)
    answers = {1: better, 2: found((7,), -0.1, score=-0.61), 3: found(list(WORDS), -0.59, score=-0.59)}
    asked: list[list[int]] = []

    def widen(windows: Sequence[int]) -> list[Found]:
        asked.append(list(windows))
        return [answers[i] for i in windows]

    listen = tells(*[evidence(HEARD, 0.3)] * 4, evidence([BEYOND] * 6, 0.3))
    results = guarded(texts, never, widen, listen, OPTIONS)
    assert asked == [[1, 2, 3]], "one search for all windows"
    assert results[0] == Guarded(WORDS, -0.49)
    assert results[1] == Guarded(better.tokens, -0.4, True, None, ("beam:5",))
    assert results[2] == results[3] == Guarded(WORDS, -0.6)
    assert results[4].guards == ("unheard",)
    assert guarded(texts, never, None, listen, OPTIONS) == [results[0], *[results[2]] * 3, results[4]]


def test_rejected_text_of_the_wider_beam_is_not_used() -> None:
    text, loop = found(WORDS, -0.6, score=-0.6), found((*WORDS, *[9] * 30), -0.3, score=-0.3)
    positions = (*HEARD, *[80] * 30)
    results = guarded([text], never, lambda windows: [loop], lambda *_: [evidence(positions)], OPTIONS)
    assert results == [Guarded(WORDS, -0.6)]


BEAM = 5
# The wider beam alone: no text is dropped or cut.
ALONE = {"enabled": True, "min_log_prob": -99, "heard_share": 0, "stalled_tokens": 999, "loop_times": 99}
ALONE |= {"compression_ratio": 99, "wider_beam": BEAM}
LENGTHS_S = (1.1, 0.5, 2.0, 1.6, 0.9, 1.3, 2.4, 0.7)


def model_of(**guards: object) -> Recognizer:
    return Recognizer(small_model(beam_size=1, guards=GuardConfig(**{**ALONE, **guards})))


def plain(beam_size: int) -> list[batch.Decoded]:
    """Return what a search of this width finds in each window, alone and without guards."""
    decoder = Recognizer(small_model(beam_size=beam_size)).decoder
    return [decoder(*pad_audio([x_N]), [None])[0] for x_N in noises(*LENGTHS_S)]


def test_recognizer_takes_the_better_search_for_improbable_texts(tmp_path: Path) -> None:
    greedy, wide = plain(1), plain(BEAM)
    sixth, seventh = sorted(result.log_prob for result in greedy)[5:7]
    threshold = (sixth + seventh) / 2  # between the two, as batches round differently; the seventh would improve too
    expected, marked = [], []
    for first, second in zip(greedy, wide, strict=True):
        better = first.log_prob < threshold and second.hypotheses[0].score > first.hypotheses[0].score + 1e-6
        expected.append(second.hypotheses[0] if better else first.hypotheses[0])
        marked.append((f"beam:{BEAM}",) if better else ())
    assert marked.count((f"beam:{BEAM}",)) == 5, "one of the six is no better with a wider beam"
    recognizer = model_of(wider_log_prob=threshold)
    audio_BN, len_B = pad_audio(noises(*LENGTHS_S))
    together = recognizer.decoder(audio_BN, len_B, [None] * 8, guards=True)
    alone = [recognizer.decoder(*pad_audio([x_N]), [None], guards=True)[0] for x_N in noises(*LENGTHS_S)]
    for results in (together, alone):
        assert [r.guards for r in results] == marked
        assert [r.hypotheses[0].tokens for r in results] == [h.tokens for h in expected]
        assert [r.hypotheses[0].score for r in results] == pytest.approx([h.score for h in expected], abs=1e-5)
    found = list(recognizer.transcribe_sources(sources(noises(*LENGTHS_S)), batch_s=3.0))
    writer = TranscriptWriter(["json"], tmp_path)
    for transcript in found:
        writer.write(transcript)
    written = [json.loads((tmp_path / f"{i}.json").read_text())["segments"] for i in range(8)]
    assert [tuple(name for segment in segments for name in segment["guards"]) for segments in written] == marked


@pytest.mark.parametrize(("beam_size", "wider_beam"), [(1, 1), (5, 5), (6, 5)])
def test_no_second_search_unless_the_beam_is_wider(
    beam_size: int, wider_beam: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    searches: list[int] = []
    search = batch.search
    monkeypatch.setattr(batch, "search", lambda *a: searches.append(a[-1].beam_size) or search(*a))
    guards = GuardConfig(**{**ALONE, "wider_beam": wider_beam, "wider_log_prob": 0.0})
    decoder = Recognizer(small_model(beam_size=beam_size, guards=guards)).decoder
    audio_BN, len_B = pad_audio(noises(*LENGTHS_S))
    results = [decoder(audio_BN, len_B, [None] * 8, guards=on) for on in (True, False)]
    assert searches == [beam_size] * 2
    assert [r.hypotheses for r in results[0]] == [r.hypotheses for r in results[1]]


@pytest.mark.filterwarnings("ignore:.*length cap")
def test_silent_window_is_not_searched_again_and_its_text_is_dropped(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[object] = []
    monkeypatch.setattr(batch, "evidence", lambda *args, **options: asked.append(args))
    guards = GuardConfig(**{**ALONE, "doubt_log_prob": 0.0, "wider_log_prob": 0.0})
    recognizer = Recognizer(small_model(beam_size=3, n_best=3, guards=guards))
    quiet_N = 1e-5 * noises(1.0)[0]
    (result,) = recognizer.transcribe_sources(sources([quiet_N]))
    assert isinstance(result, Transcript)
    assert (result.text, len(result.alternatives), asked) == ("", 1, [])
    assert result.segments[0].guards == ("silence",)
    plain = Recognizer(small_model(beam_size=3, n_best=3)).decoder
    assert plain(*pad_audio([quiet_N]), [None])[0].hypotheses[0].tokens, "the search must invent a text"
