"""Which column of a table, or key of a JSON object, holds the id and which the text."""

from __future__ import annotations

import os
from collections.abc import Collection
from dataclasses import dataclass

from asr.errors import DataError, printable
from asr.files.tables import IDS, PATHS, TEXTS, find_name


@dataclass(frozen=True)
class Columns:
    """Names of columns or JSON keys; for None, the first of the usual names that is present.

    For cuts, the text name `translations.CODE` selects their translation into that language.
    """

    id: str | None = None
    text: str | None = None
    usual_texts: tuple[str, ...] = TEXTS

    @property
    def code(self) -> str | None:
        """The language whose translations are selected, or None."""
        before, dot, code = (self.text or "").partition(".")
        return code if dot and before == "translations" else None

    @classmethod
    def of_references(cls, id: str | None = None, text: str | None = None) -> Columns:
        return cls(id, text, ("reference", "ref", *TEXTS))

    @classmethod
    def of_hypotheses(cls, id: str | None = None, text: str | None = None) -> Columns:
        return cls(id, text, ("hypothesis", "hyp", "prediction", "pred_text", *TEXTS))

    def among(self, names: Collection[str], what: str, where: str) -> tuple[str, str]:
        """Return the names of the id and the text column; raise DataError if one is missing.

        what, where: for the message: "column" or "key", and the place they were read from.
        """
        told = f"there are: {printable(', '.join(names)) or 'none'}; say which with"
        found = []
        for asked, usual, option in (
            (self.id, (*IDS, *PATHS), "--id-column"),
            (self.text, self.usual_texts, "--ref-column or --hyp-column"),
        ):
            name = (asked if asked in names else None) if asked else find_name(names, usual)
            if name is None:
                wanted = f"no {what} {asked!r}" if asked else f"none of the {what}s {', '.join(usual)}"
                raise DataError(f"{where}: {wanted}; {told} {option}")
            found.append(name)
        return found[0], found[1]

    def id_of(self, name: str, value: str) -> str:
        """Return the id that a value of this column gives: the file's stem for a path column not chosen by name."""
        return stem(value) if name.lower() in PATHS and self.id is None else value


def stem(path: str) -> str:
    """Return a file's name without its folders and suffix."""
    return os.path.splitext(os.path.basename(path))[0]
