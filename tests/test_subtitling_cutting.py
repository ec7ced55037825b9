"""Cuts of cues that overlap, or that reach outside the recording."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from subtitled import activity_of, cue

from asr.subtitling.cues import Cue
from asr.subtitling.cutting import Rules, cut
from asr.subtitling.sentences import to_sentences


def times(cues: list[Cue]) -> list[tuple[float, float]]:
    return [(round(c.start_s, 1), round(c.end_s, 1)) for c in cues]


@pytest.mark.parametrize(
    "cues",
    [
        [cue(1, 1, 6, "Where have you been today? I was waiting here."), cue(2, 1.5, 2.9, "I am here now.")],
        [cue(1, 1, 4, "I was going to"), cue(2, 1.5, 5, "stop it, all of you.")],
    ],
    ids=["split", "joined"],
)
def test_overlapping_cues_are_neither_split_nor_joined_but_dropped(cues: list[Cue]) -> None:
    activity = activity_of([(1, 3), (3.6, 6)], 10)
    kept, dropped = cut(to_sentences(cues, activity, 20), activity, Rules())
    assert not kept
    assert [(each.cue, each.reason) for each in dropped] == [(one, "overlapping") for one in cues]


def test_sentences_of_cues_that_overlap_slightly_are_in_the_order_of_time() -> None:
    cues = [cue(1, 0, 6, "It has been a very long day for all of us, has it not? Yes."), cue(2, 5.55, 8, "Go home.")]
    found = to_sentences(cues, activity_of([(0, 5.2), (5.6, 8)], 10), 20)
    assert times(found) == [(0, 5.2), (5.5, 8), (5.6, 6)]


def test_cue_that_reaches_slightly_outside_the_recording_is_cut_at_its_edge() -> None:
    activity = activity_of([(1.2, 2), (7, 7.8)], 10)
    kept, dropped = cut([cue(1, -0.4, 2, "It begins."), cue(2, 7, 10.45, "It ends.")], activity, Rules())
    assert not dropped
    assert times([each.cue for each in kept]) == [(0, 2), (7, 10)]
    assert all(each.start_s <= each.cue.start_s and each.cue.end_s <= each.end_s for each in kept)


starts_and_lengths = st.lists(st.tuples(st.floats(0, 20), st.floats(0.1, 6)), min_size=1, max_size=8)
speech = st.lists(st.floats(0, 25), max_size=12).map(lambda edges: list(pairwise(sorted(edges)))[::2])


@given(starts_and_lengths, speech)
def test_kept_cues_never_overlap(spans: list[tuple[float, float]], speech: list[tuple[float, float]]) -> None:
    text = "Are you there? No, I am not."
    cues = [cue(i, start_s, start_s + length_s, text) for i, (start_s, length_s) in enumerate(sorted(spans))]
    activity = activity_of(speech, 30)
    kept, _ = cut(to_sentences(cues, activity, 20), activity, Rules(max_cps=1000))
    assert all(one.cue.end_s <= two.cue.start_s + 1e-9 for one, two in pairwise(kept))
