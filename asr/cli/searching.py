"""What several commands are told of the search."""

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
    """Keys of `decode` that take the place of the model's own, each option a field."""

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
        """Those that were given; `more` are keys that this does not tell, None if they were not."""
        found = {field.name: getattr(self, field.name) for field in fields(self)} | more
        return {name: value for name, value in found.items() if value is not None}
