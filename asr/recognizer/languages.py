"""The languages of a model: whether one has to be given, and which one is spoken."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from asr.errors import AsrError
from asr.model.masks import Memory
from asr.tokenizer import Tokenizer


@dataclass(frozen=True)
class Languages:
    """What a model makes of a language that is not given; kind: of its decoder.

    An attention decoder detects it by its language tokens, CTC alone does not need it, other decoders have to be told.
    """

    kind: str
    decoder: Any
    tokenizer: Tokenizer

    @property
    def known(self) -> Sequence[str]:
        """The languages that the vocabulary has tokens for."""
        return self.tokenizer.languages

    @property
    def detected(self) -> bool:
        """Whether the model detects a missing language."""
        return self.kind == "attention" and len(self.known) > 1

    @property
    def needed(self) -> bool:
        """Whether a language has to be given."""
        return self.kind not in ("attention", "none") and len(self.known) > 1

    @property
    def request(self) -> str:
        """The error message for a missing language."""
        return f"this model cannot detect the language: give it, one of {', '.join(self.known)}"

    def filled_in(self, languages: Sequence[str | None], memory: Memory) -> Sequence[str | None]:
        """Replace each language that is None by the one with the most probable language token.

        Raises AsrError if one is missing and has to be given.
        """
        if not self.known or None not in languages or self.kind == "none":
            return languages
        if self.needed:
            raise AsrError(self.request)
        if self.kind != "attention":
            return [self.known[0]] * len(languages)
        rows = [row for row, given in enumerate(languages) if given is None]
        device = memory.states_BTD.device
        starts = torch.tensor([self.tokenizer.prefix(language)[:2] for language in self.known], device=device)
        first_B1 = starts[:1, :1].expand(len(rows), 1)
        log_prob_BV, _ = self.decoder.step(first_B1, self.decoder.start(memory.part(rows)))
        found = iter(log_prob_BV[:, starts[:, 1]].argmax(1).tolist())
        return [self.known[next(found)] if given is None else given for given in languages]
