"""Convert pretrained weights to model folders: `import_model` detects their format from the files."""

from __future__ import annotations

from pathlib import Path

import torch

from asr.checkpoint import CONFIG, WEIGHTS, ModelFolder, save_model_folder
from asr.errors import CheckpointError, ConfigError, printable
from asr.files.small import read_json
from asr.model.build import build_model, unfilled, weights_needed
from asr.pretrained import speech2text, whisper
from asr.pretrained.fetch import fetch
from asr.pretrained.files import Pretrained, Settings
from asr.pretrained.silence import with_padding
from asr.pretrained.weights import expecting

CT2 = "model.bin"


def import_model(source: str | Path, out: Path, *, exact: bool = False, vocabulary: Path | None = None) -> ModelFolder:
    """Convert pretrained weights, from a file, a folder or a name that `find_model` knows, to a model folder.

    source: Whisper as a CTranslate2 folder, a Hugging Face folder or OpenAI's `.pt`; Speech2Text as a Hugging Face
    folder.  exact: compute the silence that fills up Whisper's windows in full, as other implementations do, instead of
    recalling it from memory (RecallSilence).  vocabulary: the `.tiktoken` file or `tokenizer.json` for a `.pt`, by
    default found beside it or in OpenAI's installed package.
    Raises CheckpointError, without writing anything, if `out` is already a model folder, or if the weights are missing,
    damaged, of another architecture or do not match their vocabulary.
    """
    path = Path(source)
    if (Path(out) / WEIGHTS).exists():
        raise CheckpointError(f"{out}: there is a model already: remove it, or name another folder")
    read = _read(path if path.exists() else fetch(str(source)), vocabulary)
    parts = _build(read)
    if not exact and parts.config.model.encoder.padding == "keep":
        parts = with_padding(parts, "recall")
    save_model_folder(Path(out), parts)
    return parts


class _Kind(Settings):
    """The model type in the `config.json` of a Hugging Face folder."""

    model_type: str | None = None


def _read(path: Path, vocabulary: Path | None) -> Pretrained:
    if path.is_file() and path.suffix in (".pt", ".pth"):
        return whisper.from_openai(path, vocabulary)
    if vocabulary is not None:
        raise ConfigError(f"{vocabulary}: a vocabulary is given with OpenAI's .pt alone; folders have their own")
    if (path / CT2).is_file():
        return whisper.from_ctranslate2(path)
    if (path / "config.json").is_file():
        kind = read_json(_Kind, path / "config.json").model_type
        if kind == "whisper":
            return whisper.from_hugging_face(path)
        if kind == "speech_to_text":
            return speech2text.from_hugging_face(path)
        what = f"model_type {kind!r}" if kind else f"neither a model_type nor {CT2} beside it"
        raise CheckpointError(printable(f"{path}/config.json: {what}; known are whisper and speech_to_text"))
    if (path / CONFIG).is_file():
        raise CheckpointError(f"{path}: is a model folder already; give it as --model")
    known = f"CTranslate2 ({CT2}) or Hugging Face (config.json) folder, and no .pt file of OpenAI"
    raise CheckpointError(printable(f"{path}: no {known}'s Whisper"))


def _build(read: Pretrained) -> ModelFolder:
    sizes = read.config.features, read.config.model, read.tokenizer.vocab_size
    with expecting(read.whose, read.path):
        # Never allocate more than the file could fill; twice its size, as computed parameters may be missing from it.
        if weights_needed(build_model, *sizes) > 2 * read.size:
            raise ValueError("they are far fewer than its settings ask for")
        model = unfilled(build_model, *sizes)
        with torch.no_grad():
            model.load_state_dict(read.state)
    return ModelFolder(read.config, model.eval(), read.tokenizer)
