"""Loading a recogniser by name: `load_model`."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from typing_extensions import Unpack

from asr.checkpoint import load_model_folder
from asr.config import DecodeKeys
from asr.errors import ConfigError
from asr.machine import find_device
from asr.model.precision import Precision, fastest
from asr.pretrained import find_model
from asr.recognizer import Recognizer
from asr.recognizer.searchers import options_with
from asr.vad import load_detector


def load_model(
    name: str | Path,
    *,
    device: str = "auto",
    dtype: Precision | Literal["auto"] = "auto",
    **options: Unpack[DecodeKeys],
) -> Recognizer:
    """Load a model to transcribe with.

    name: a model folder, or a name such as "whisper-tiny.en" (see asr.pretrained.find_model).  device: auto, cpu,
    cuda or cuda:1.  dtype: float32, bfloat16, int8 (CPU only), or auto, the fastest on the device without a noticeable
    loss of accuracy.  options: search options that replace the model's own, such as beam_size=5; they are the keys of
    `decode` in docs/configuration.md.  A beam narrower than the model's own n_best lowers n_best as well.  Raises
    CheckpointError if there is no such model, ConfigError for options that do not exist or do not fit.

    >>> load_model("whisper-tiny.en").transcribe("talk.mp3").text   # doctest: +SKIP
    """
    found = find_device(device)
    parts = load_model_folder(find_model(name))
    decode = options_with(parts.config.decode, options, "options of the search")
    try:
        parts.model.to(found)
    except RuntimeError as e:
        raise ConfigError(f"device {found}: {str(e).splitlines()[0]}") from None
    if dtype == "int8" and found.type != "cpu":
        raise ConfigError(f"dtype int8 is for the CPU; on {found} give bfloat16 or float32")
    precision = fastest(found) if dtype == "auto" else dtype
    return Recognizer(parts, decode, precision, load_detector(parts.model.front_end.sample_rate_hz))
