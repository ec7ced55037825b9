"""Tasks by name, and the cuts that each task makes of a cut."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from lhotse.cut import MultiCut
from synthetic import cut, translated

from asr.data.cuts import Chosen, text_of
from asr.data.tasks import for_task, for_tasks, spoken_text_of, task_of, text_language_of
from asr.errors import AsrError, DataError
from asr.tasks import chosen, into


def test_tasks_are_found_by_name() -> None:
    assert (into("transcribe"), into("translate:de")) == (None, "de")
    assert chosen(None, ["translate:de", "transcribe"]) == "translate:de"
    assert chosen("translate", ["transcribe", "translate:de"]) == "translate:de"
    assert chosen("translate", ["transcribe", "translate:de", "translate:en"]) == "translate:en"
    for task, known in (("translate", ["transcribe"]), ("translate", ["translate:de", "translate:fr"]), ("x", ["y"])):
        with pytest.raises(AsrError, match=f"this model has no task '{task}.*': it has {', '.join(known)}"):
            chosen(task, known)
    with pytest.raises(AsrError, match=r"--model whisper-small, or one that was trained to \(data\.tasks\)$"):
        chosen("translate", ["transcribe"])
    with pytest.raises(AsrError, match=r"to translate, take one that was trained to \(data\.tasks\)$"):
        chosen("translate:fr", ["transcribe"])


def test_cut_has_the_text_and_language_of_each_task() -> None:
    spoken = translated(cut("a", 1.0, "two", language="en"), {"de": "zwei", "fr": "deux"})
    found = list(for_tasks([spoken], ["transcribe", "translate:fr"], pytest.fail))
    assert [(c.id, text_of(c), spoken_text_of(c), task_of(c), text_language_of(c)) for c in found] == [
        ("a", "two", "two", "transcribe", "en"),
        ("a>fr", "deux", "two", "translate:fr", "fr"),
    ]
    assert found[0] is spoken
    joined = (
        found[1].perturb_speed(1.1, affix_id=False).mix(found[1].with_id("b"), offset_other_by=1.0, allow_padding=True)
    )
    assert (text_of(joined), spoken_text_of(joined), task_of(joined)) == ("deux deux", "two two", "translate:fr")


def test_a_language_that_a_manifest_names_in_english_is_chosen_by_code_or_name() -> None:
    spoken = cut("a", 1.0, language="Mandarin")
    assert text_language_of(spoken) == "zh"
    assert all(Chosen([name])(spoken) for name in ("zh", "Chinese", "mandarin"))
    assert not Chosen(["en"])(spoken)


@pytest.mark.parametrize(
    ("translations", "says"),
    [
        ({"fr": "deux"}, "no translation into de"),
        ({"de": 3}, "no translation into de"),
        ("zwei", "no translation into de"),
        (None, "no translation into de"),
        ({"de": " "}, "the translation into de is empty"),
    ],
)
def test_missing_translation_is_reported(translations: Any, says: str) -> None:
    spoken = translated(cut("a", 1.0, "two"), translations)
    with pytest.raises(DataError, match=f"^{says}$"):
        for_task(spoken, "translate:de")
    told: list[Any] = []
    assert list(for_tasks([spoken], ["translate:de", "transcribe"], told.append)) == [spoken]
    assert told == [("a>de", says)]


def test_multichannel_cut_is_translated_like_a_single_channel() -> None:
    one = translated(cut("a", 1.0, "two"), {"de": "zwei"})
    both = MultiCut("a", 0.0, 1.0, [0, 1], supervisions=one.supervisions, recording=one.recording)
    assert text_of(for_task(both, "translate:de")) == "zwei"


def test_texts_of_supervisions_are_joined_in_time_order() -> None:
    said = translated(cut("a", 2.0, "two"), {"de": "zwei"})
    (second,) = said.supervisions
    first = replace(second, start=0.0, text="one", custom={"translations": {"de": "eins"}})
    later = replace(said, supervisions=[replace(second, start=1.0), first])
    german = for_task(later, "translate:de")
    assert (text_of(later), text_of(german), spoken_text_of(german)) == ("one two", "eins zwei", "one two")
