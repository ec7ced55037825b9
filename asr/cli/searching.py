"""Decoding options shared by several commands."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

from asr.cli.options import (
    BeamSize,
    CtcWeight,
    LengthBonus,
    Lm,
    LmUnit,
    LmWeight,
    NBest,
    Temperature,
    TopP,
)


@dataclass(frozen=True, kw_only=True)
class Searching:
    """Options that replace keys of the model's own `decode` section, one per field."""

    beam_size: BeamSize = None
    n_best: NBest = None
    ctc_weight: CtcWeight = None
    length_bonus: LengthBonus = None
    lm: Lm = None
    lm_weight: LmWeight = None
    lm_unit: LmUnit = None
    temperature: Temperature = None
    top_p: TopP = None

    def given(self, **more: Any) -> dict[str, Any]:
        """Return the options that were given.  more: further keys, None if they were not given."""
        found = {field.name: getattr(self, field.name) for field in fields(self)} | more
        return {name: value for name, value in found.items() if value is not None}
