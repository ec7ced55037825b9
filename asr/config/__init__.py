"""The options of experiments and model folders, and their YAML files."""

from __future__ import annotations

from .base import Config
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
    TrainerConfig,
    check_losses,
)

__all__ = [
    "EXPERIMENT",
    "AdaptConfig",
    "AugmentConfig",
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
    "ModelConfig",
    "ModelFolderConfig",
    "NoDecoderConfig",
    "OptimizerConfig",
    "Padding",
    "SubsamplingConfig",
    "TokenizerConfig",
    "TrainerConfig",
    "TransducerConfig",
    "TransformerDecoderConfig",
    "WhisperFeaturesConfig",
    "check_losses",
    "parse_yaml",
    "read_config",
    "to_yaml",
    "validate",
]
