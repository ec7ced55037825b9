"""Tasks of cuts: transcribing what is said, or one of the translations that the cut carries.

A supervision has its text and, as `custom["translations"]`, a mapping from language codes to texts.  In a cut for a
translation task, the supervisions have the translation as their text and keep what is said as a custom field.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from lhotse.cut import Cut
from lhotse.cut.data import DataCut
from lhotse.supervision import SupervisionSegment
from lhotse.utils import fastcopy

from asr.data.cuts import Dropped, in_time, language_of
from asr.errors import DataError
from asr.tasks import TRANSCRIBE, into
from asr.text.scripts import one_after_another

_TASK, _SPOKEN = "asr.task", "asr.spoken"


def task_of(cut: Cut) -> str:
    """Return the task of a cut."""
    return str(_custom(cut.supervisions[0]).get(_TASK, TRANSCRIBE)) if cut.supervisions else TRANSCRIBE


def text_language_of(cut: Cut) -> str | None:
    """Return the language of a cut's text, which is that of its speech unless it is a translation."""
    return into(task_of(cut)) or language_of(cut)


def spoken_text_of(cut: Cut) -> str:
    """Return the transcript of a cut, '' if it has none."""
    texts = [_custom(s).get(_SPOKEN) if _TASK in _custom(s) else s.text for s in in_time(cut.supervisions)]
    return one_after_another(text for text in texts if text)


def for_task(cut: Cut, task: str) -> Cut:
    """Return the cut with the text for a task.  Raises DataError, without the cut's id, if it has no such text."""
    if (code := into(task)) is None:
        return cut
    if not isinstance(cut, DataCut) or not cut.supervisions:
        raise DataError("no speech to translate: not a cut of one recording with supervisions")
    return fastcopy(cut, supervisions=[_translated(s, code, task) for s in cut.supervisions])


def for_tasks(cuts: Iterable[Cut], tasks: Sequence[str], note: Callable[[Dropped], None]) -> Iterator[Cut]:
    """Yield each cut once for each task, translations under their own ids; `note` gets those whose text is missing."""
    for cut in cuts:
        for task in tasks:
            code = into(task)
            id = cut.id if code is None else f"{cut.id}>{code}"
            try:
                yield cut if code is None else for_task(cut, task).with_id(id)
            except DataError as e:
                note(Dropped(id, str(e)))


def _translated(supervision: SupervisionSegment, code: str, task: str) -> SupervisionSegment:
    custom = _custom(supervision)
    translations = custom.get("translations")
    text = translations.get(code) if isinstance(translations, Mapping) else None
    if not isinstance(text, str):
        raise DataError(f"no translation into {code}")
    if not text.strip():
        raise DataError(f"the translation into {code} is empty")
    return fastcopy(supervision, text=text, custom={**custom, _TASK: task, _SPOKEN: supervision.text})


def _custom(supervision: SupervisionSegment) -> Mapping[str, Any]:
    return supervision.custom or {}
