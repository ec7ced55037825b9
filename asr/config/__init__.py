"""The options of experiments and model folders, and their YAML files."""

from __future__ import annotations

from .attention import ChunkConfig, WindowConfig
from .base import Config
from .criteria import MinimumErrorConfig, ScheduledSamplingConfig
from .features import FeaturesConfig, KaldiFeaturesConfig, LogMelConfig, WhisperFeaturesConfig
from .model import (
    DecodeConfig,
    DecoderConfig,
    EncoderConfig,
    GuardConfig,
    MaskPredictConfig,
    ModelConfig,
    ModelFolderConfig,
    NoDecoderConfig,
    Padding,
    SubsamplingConfig,
    TokenizerConfig,
    TransducerConfig,
    TransformerDecoderConfig,
)
from .reading import parse_yaml, read_config, to_yaml, validate
from .training import (
    EXPERIMENT,
    AdaptConfig,
    AugmentConfig,
    DataConfig,
    ExperimentConfig,
    GuidedAttentionConfig,
    LossConfig,
    OptimizerConfig,
    PlateauConfig,
    TrainerConfig,
    check_losses,
    check_processes,
)

__all__ = [
    "EXPERIMENT",
    "AdaptConfig",
    "AugmentConfig",
    "ChunkConfig",
    "Config",
    "DataConfig",
    "DecodeConfig",
    "DecoderConfig",
    "EncoderConfig",
    "ExperimentConfig",
    "FeaturesConfig",
    "GuardConfig",
    "GuidedAttentionConfig",
    "KaldiFeaturesConfig",
    "LogMelConfig",
    "LossConfig",
    "MaskPredictConfig",
    "MinimumErrorConfig",
    "ModelConfig",
    "ModelFolderConfig",
    "NoDecoderConfig",
    "OptimizerConfig",
    "Padding",
    "PlateauConfig",
    "ScheduledSamplingConfig",
    "SubsamplingConfig",
    "TokenizerConfig",
    "TrainerConfig",
    "TransducerConfig",
    "TransformerDecoderConfig",
    "WhisperFeaturesConfig",
    "WindowConfig",
    "check_losses",
    "check_processes",
    "parse_yaml",
    "read_config",
    "to_yaml",
    "validate",
]
