"""Initialization from the model that `init` names: all of it, or some parts with a new vocabulary."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from asr.checkpoint import ModelFolder, load_model_folder
from asr.config import ExperimentConfig, InitConfig, ModelConfig, ModelFolderConfig, check_fits, validate
from asr.errors import AsrError, ConfigError
from asr.model.build import build_model, token_weights
from asr.model.speech import SpeechModel
from asr.pretrained import find_model, resettled
from asr.recognizer.searchers import options_with
from asr.tasks import chosen
from asr.tokenizer import Tokenizer


def adapted(config: ExperimentConfig, init: InitConfig) -> ModelFolder:
    """Return the model that `init` names, weights and vocabulary, with the changes that the run's configuration makes.

    Of the decoding options, only those that the run sets explicitly replace the model's own.
    """
    parts = load_model_folder(find_model(init.from_))
    model = parts.config.model
    if config.adapt.pointer is not None and getattr(model.decoder, "pointer", None) is not None:
        raise ConfigError("adapt.pointer: the decoder of the model that init brings has a pointer already")
    try:
        for task in config.data.tasks:
            chosen(task, parts.tokenizer.tasks)
    except AsrError as e:
        hint = "take parts of it, such as init: {from: FOLDER, parts: [encoder]}"
        raise ConfigError(f"{init.from_}: {e}; {hint}") from None
    decode = options_with(parts.config.decode, config.decode.model_dump(exclude_unset=True), "decode")
    settled = parts.config.model_copy(update={"decode": decode, "normalizer": config.normalizer})
    return resettled(parts, _fitting(config, init, _validated(init, settled, _changed(config, init, model))))


def assembled(config: ExperimentConfig, init: InitConfig, tokenizer: Tokenizer) -> ModelFolder:
    """Return a new model for a vocabulary, with the parts that `init` names; all other weights are initial ones."""
    assert init.parts is not None
    source, parts = init.from_, init.parts
    start = load_model_folder(find_model(source))
    if "decoder" in parts and start.model.decoder is None:
        raise ConfigError(f"{source}: it has no decoder: leave it out of init.parts")
    if "ctc" in parts and start.model.ctc is None:
        raise ConfigError(f"{source}: it has no CTC head: leave ctc out of init.parts")
    start = resettled(start, _validated(init, start.config, _changed(config, init, start.config.model)))
    taken = {name: getattr(start.config.model, name) for name in ("activation", *parts)}
    settled = start.config.model_copy(
        update={"tokenizer": config.tokenizer, "decode": config.decode, "normalizer": config.normalizer}
    )
    settled = _fitting(config, init, _validated(init, settled, config.model.model_copy(update=taken)))
    model = build_model(settled.features, settled.model, tokenizer.vocab_size)
    _take(model, start, parts, token_weights(settled.features, settled.model), _same_tokens(start.tokenizer, tokenizer))
    return ModelFolder(settled, model, tokenizer)


def _changed(config: ExperimentConfig, init: InitConfig, model: ModelConfig) -> ModelConfig:
    """Apply the changes of `adapt` to the parts that come from `init`."""
    changed = {}
    for side, changes in config.adapt.changes.items():
        if side in (init.parts or (side,)):
            own = getattr(model, side)
            if side == "encoder" and "padding" in changes:
                own = own.padded(changes["padding"])
            changed[side] = own.model_copy(update={name: x for name, x in changes.items() if hasattr(own, name)})
    return model.model_copy(update=changed)


def _validated(init: InitConfig, settled: ModelFolderConfig, model: ModelConfig) -> ModelFolderConfig:
    """Return the settings with this model configuration.  Raises ConfigError if they do not fit together."""
    settled = settled.model_copy(update={"model": model})
    return validate(ModelFolderConfig, settled.model_dump(), f"{init.from_}, with what adapt changes")


def _fitting(config: ExperimentConfig, init: InitConfig, settled: ModelFolderConfig) -> ModelFolderConfig:
    """Return the settings unchanged.  Raises ConfigError if the run cannot train such a model."""
    try:
        check_fits(config, settled.features, settled.model)
    except ValueError as e:
        raise ConfigError(f"{init.from_}: {e}") from None
    return settled


def _same_tokens(before: Tokenizer, after: Tokenizer) -> Tensor:
    """Return the ids (2, X) of the tokens common to both vocabularies: in `before`, and in `after`."""
    known = {name: id for id, name in enumerate(before.names)}
    pairs = [(known[name], id) for id, name in enumerate(after.names) if name in known]
    return torch.tensor(pairs, dtype=torch.long).reshape(-1, 2).T


@torch.no_grad()
def _take(model: SpeechModel, start: ModelFolder, parts: Sequence[str], rows: set[str], same_2X: Tensor) -> None:
    """Copy the weights of the named parts; of weights with a row per token (`rows`), only the common tokens' rows."""
    old = start.model.state_dict()
    for name, weight in model.state_dict().items():
        if name.partition(".")[0] not in ("front_end", *parts):
            continue
        if name in rows:
            weight[same_2X[1]] = old[name][same_2X[0]]
        else:
            weight.copy_(old[name])
