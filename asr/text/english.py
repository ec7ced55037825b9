"""`english`: the rules by which Whisper is scored."""

from __future__ import annotations

from functools import lru_cache

from asr.errors import ConfigError
from asr.text.chain import Settled, Step


def english(language: str | None) -> Settled:
    """Return the rules of Radford et al. 2022, appendix C, from whisper-normalizer, repeated until nothing changes.

    Raises ConfigError for a language other than English.
    """
    if language is not None and language.replace("_", "-").split("-")[0].lower() != "en":
        raise ConfigError(f"normalizer 'english' cannot treat language {language!r}: use 'basic' or 'spoken'")
    return _rules()


@lru_cache(maxsize=1)
def _rules() -> Settled:
    # Reads its spelling table, so imported only when needed.
    from whisper_normalizer.english import EnglishTextNormalizer

    whisper = EnglishTextNormalizer()
    return Settled(
        (
            Step("byte-order mark", lambda text: text.replace("\ufeff", "")),
            Step("Whisper's English rules", lambda text: " ".join(whisper(text).split())),
        )
    )
