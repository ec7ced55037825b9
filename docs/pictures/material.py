"""What pictures of trained models are drawn from: models by their row in conf/ablation.yaml, and clips by id."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lhotse import CutSet
from lhotse.cut import Cut
from matplotlib import colormaps
from matplotlib.axes import Axes

from asr.checkpoint import ModelFolder, load_model_folder
from asr.config import ExperimentConfig, read_config
from asr.data.batch import Batch, collate
from asr.data.cuts import read_cuts
from asr.data.examples import Examples
from asr.errors import DataError
from asr.features import Features
from asr.model.masks import Memory
from docs.pictures.style import FEATURES, PALE

CLIP = "en/conf-now-muted"  # "the conference is now muted", from dev
LONG = "en/vm-newpassword"  # 3.7 s
LEVELS = 24  # colours of features: few, to keep the files small


@dataclass(frozen=True)
class Material:
    """The models and clips that are drawn.

    models: folder with ROW/SEED/model, as `asr ablate` writes them.  pointer: folder of a model with a pointer.  conf:
    the experiment that says which clips are read, and how.
    """

    models: Path
    pointer: Path
    conf: Path

    @cached_property
    def experiment(self) -> ExperimentConfig:
        """The experiment that says how clips are read."""
        return read_config(ExperimentConfig, self.conf)

    @cached_property
    def _cuts(self) -> CutSet:
        return read_cuts(self.experiment.data.dev)

    def folder(self, row: str) -> Path:
        """Return the folder of a row's model, that of the lowest seed."""
        seeds = sorted((path for path in (self.models / row).glob("*/model")), key=lambda path: path.parent.name)
        return seeds[0] if seeds else self.models / row / "0" / "model"

    def model(self, row: str) -> ModelFolder:
        """Return the model of a row.  Raises CheckpointError if it has not been trained."""
        return load_model_folder(self.folder(row))

    def cuts(self, *ids: str) -> list[Cut]:
        """Return clips of dev.  Raises DataError if one is missing."""
        cuts = {cut.id: cut for cut in self._cuts}
        if missing := [id for id in ids if id not in cuts]:
            raise DataError(f"{self.experiment.data.dev}: no clip {', '.join(missing)}")
        return [cuts[id] for id in ids]

    def batch(self, parts: ModelFolder, *ids: str) -> Batch:
        """Return clips of dev as a batch for the model.  Raises DataError if one is missing."""
        return self.collated(parts, self.cuts(*ids))

    def collated(self, parts: ModelFolder, cuts: Sequence[Cut]) -> Batch:
        """Return cuts as a batch, with the text normalised and tokenized as for the model's training."""
        config = self.experiment.model_copy(update={"normalizer": parts.config.normalizer})
        examples = Examples(config, parts.tokenizer, parts.model.front_end.sample_rate_hz)
        return collate([examples.plain(cut) for cut in cuts])


def heard(parts: ModelFolder, batch: Batch) -> tuple[Features, Memory]:
    """Return the features of clips and the encoder output."""
    with torch.no_grad():
        features = parts.model.front_end(batch.audio_BN, batch.audio_len_B)
        return features, parts.model.encoder(features)


def frame_s(parts: ModelFolder) -> float:
    """Return the seconds from one frame of the encoder to the next."""
    return parts.model.front_end.hop_s * parts.config.model.encoder.subsampling.factor


def draw_features(axis: Axes, features: Features, parts: ModelFolder, whole: Features | None = None) -> None:
    """Draw the features of the first clip over time, greyed where they differ from those of `whole`."""
    x_TF = features.x_BTF[0, : int(features.len_B[0])].numpy()
    masked_TF = False if whole is None else x_TF != whole.x_BTF[0].numpy()
    extent = (0, len(x_TF) * parts.model.front_end.hop_s, 0, x_TF.shape[1])
    colours = colormaps[FEATURES].resampled(LEVELS).with_extremes(bad=PALE)
    shown_FT = np.ma.masked_where(masked_TF, x_TF).T
    axis.imshow(shown_FT, origin="lower", aspect="auto", extent=extent, cmap=colours, vmin=-2, vmax=2.5)
    axis.set_ylabel("mel bin")


class Watched:
    """A wrapper of a part that passes the arguments and result of each call of one method to `seen`."""

    def __init__(self, part: Any, name: str, seen: Callable[[tuple[Any, ...], Any], None]) -> None:
        self._part, self._name, self._seen = part, name, seen

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._part, name)
        if name != self._name:
            return found

        def call(*args: Any, **options: Any) -> Any:
            result = found(*args, **options)
            self._seen(args, result)
            return result

        return call
