"""What pictures of trained models are drawn from: models by the row of conf/ablation.yaml, and clips by their id."""

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

CLIP = "en/conf-now-muted"  # "the conference is now muted", of dev
LONG = "en/vm-newpassword"  # 3.7 s
LEVELS = 24  # colours of features, which keep the files small


@dataclass(frozen=True)
class Material:
    """Where models and clips are.

    models: holds ROW/0/model, as `asr ablate` leaves them.  pointer: a model with a pointer.  conf: the experiment that
    tells how clips are read.
    """

    models: Path
    pointer: Path
    conf: Path

    @cached_property
    def experiment(self) -> ExperimentConfig:
        """How clips are read and masked."""
        return read_config(ExperimentConfig, self.conf)

    @cached_property
    def _cuts(self) -> CutSet:
        return read_cuts(self.experiment.data.dev)

    def model(self, row: str) -> ModelFolder:
        """The model of a row; CheckpointError if it has not been trained."""
        return load_model_folder(self.models / row / "0" / "model")

    def cuts(self, *ids: str) -> list[Cut]:
        """Clips of dev; DataError for one that is not there."""
        cuts = {cut.id: cut for cut in self._cuts}
        if missing := [id for id in ids if id not in cuts]:
            raise DataError(f"{self.experiment.data.dev}: no clip {', '.join(missing)}")
        return [cuts[id] for id in ids]

    def batch(self, parts: ModelFolder, *ids: str) -> Batch:
        """Clips of dev as the model was trained on such; DataError for one that is not there."""
        return self.collated(parts, self.cuts(*ids))

    def collated(self, parts: ModelFolder, cuts: Sequence[Cut]) -> Batch:
        """Cuts as the model was trained on such."""
        config = self.experiment.model_copy(update={"normalizer": parts.config.normalizer})
        examples = Examples(config, parts.tokenizer, parts.model.front_end.sample_rate_hz)
        return collate([examples.plain(cut) for cut in cuts])


def heard(parts: ModelFolder, batch: Batch) -> tuple[Features, Memory]:
    """The features of clips, and what the encoder makes of them."""
    with torch.no_grad():
        features = parts.model.front_end(batch.audio_BN, batch.audio_len_B)
        return features, parts.model.encoder(features)


def frame_s(parts: ModelFolder) -> float:
    """Seconds from one frame of the encoder to the next."""
    return parts.model.front_end.hop_s * parts.config.model.encoder.subsampling.factor


def draw_features(axis: Axes, features: Features, parts: ModelFolder, whole: Features | None = None) -> None:
    """The features of the first clip over its seconds; where they are not those of the whole they are masked."""
    x_TF = features.x_BTF[0, : int(features.len_B[0])].numpy()
    masked_TF = False if whole is None else x_TF != whole.x_BTF[0].numpy()
    extent = (0, len(x_TF) * parts.model.front_end.hop_s, 0, x_TF.shape[1])
    colours = colormaps[FEATURES].resampled(LEVELS).with_extremes(bad=PALE)
    shown_FT = np.ma.masked_where(masked_TF, x_TF).T
    axis.imshow(shown_FT, origin="lower", aspect="auto", extent=extent, cmap=colours, vmin=-2, vmax=2.5)
    axis.set_ylabel("mel bin")


class Watched:
    """A part of which one method's calls are watched; all else is the part's own."""

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
