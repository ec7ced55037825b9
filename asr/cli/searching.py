"""Decoding options shared by several commands."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from asr.cli.options import (
    BeamSize,
    CtcWeight,
    Decode,
    Guards,
    HotwordBonus,
    Hotwords,
    LengthBonus,
    Lm,
    LmUnit,
    LmWeight,
    NBest,
    Temperature,
    TopP,
)
from asr.errors import ConfigError, printable


@dataclass(frozen=True, kw_only=True)
class Searching:
    """Options that replace keys of the model's own `decode` section, one per field; `decode` holds any others."""

    phrases: Hotwords = None
    phrase_bonus: HotwordBonus = None
    guards: Guards = None
    beam_size: BeamSize = None
    n_best: NBest = None
    ctc_weight: CtcWeight = None
    length_bonus: LengthBonus = None
    lm: Lm = None
    lm_weight: LmWeight = None
    lm_unit: LmUnit = None
    temperature: Temperature = None
    top_p: TopP = None
    decode: Decode = None

    def given(self) -> dict[str, Any]:
        """Return the options that were given.  Raises ConfigError for wrong keys or values in `decode`."""
        found = {name: value for name, value in asdict(self).items() if value is not None and name != "decode"}
        if self.guards is not None:
            found["guards"] = {"enabled": self.guards}
        return _with_others(found, self.decode) if self.decode else found


def _with_others(found: dict[str, Any], changes: list[str]) -> dict[str, Any]:
    """Return options of the search with others that are given as KEY=VALUE, all in the types of JSON."""
    from asr.config import DecodeConfig, parse_yaml, set_key, validate  # takes a while

    for change in changes:
        key, equals, value = change.partition("=")
        if not equals or key in found:
            raise ConfigError(f"--decode {printable(change)}: give KEY=VALUE, and each key once")
        set_key(found, key, parse_yaml(value, f"--decode {printable(change)}"), printable(change))
    return validate(DecodeConfig, found, "--decode").model_dump(mode="json", exclude_unset=True)
