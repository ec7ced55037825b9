"""Tasks, what becomes of speech, by name: `transcribe`, or `translate:CODE` into the language of that code."""

from __future__ import annotations

from collections.abc import Sequence

from asr.errors import AsrError

LANGUAGE_CODE = r"[a-z]{2,3}([-_][A-Za-z0-9]{2,8})*"
TRANSCRIBE = "transcribe"
TRANSLATE = "translate"
TASK = rf"{TRANSCRIBE}|{TRANSLATE}:{LANGUAGE_CODE}"


def into(task: str) -> str | None:
    """The language that a task translates into; None if it writes down what is said."""
    return None if task == TRANSCRIBE else task.partition(":")[2]


def chosen(task: str | None, known: Sequence[str]) -> str:
    """Which of a model's tasks is meant: if none is named the first; `translate` is the only one, or that into English.

    Raises AsrError, with those that there are, for any other.
    """
    if task is None:
        return known[0]
    translations = [name for name in known if into(name) is not None]
    english = f"{TRANSLATE}:en"
    if task == TRANSLATE and translations:
        task = translations[0] if len(translations) == 1 else english
    if task not in known:
        raise AsrError(f"this model has no task {task!r}: it has {', '.join(known)}")
    return task
