"""The options of experiments and model folders, and their YAML files."""

from __future__ import annotations

from .ablation import BASE, AblationConfig, CorpusConfig, RowConfig
from .attention import ChunkConfig, WindowConfig
from .base import Config
from .criteria import GuidedAttentionConfig, LossConfig, MinimumErrorConfig, ScheduledSamplingConfig
from .data import AugmentConfig, DataConfig, PhraseListConfig
from .decode import DecodeConfig, DecodeKeys, GuardConfig
from .decoder import (
    DecoderConfig,
    MaskPredictConfig,
    NoDecoderConfig,
    PointerConfig,
    TransducerConfig,
    TransformerDecoderConfig,
)
from .encoder import EncoderConfig, Padding, SubsamplingConfig
from .features import FeaturesConfig, KaldiFeaturesConfig, LogMelConfig, WhisperFeaturesConfig
from .fitting import check_fits
from .initial import BROUGHT, AdaptConfig, InitConfig
from .language import (
    LanguageDataConfig,
    LanguageExperimentConfig,
    LanguageFolderConfig,
    LanguageModelConfig,
    LanguageTrainerConfig,
)
from .model import ModelConfig, ModelFolderConfig, TokenizerConfig
from .optimizer import OptimizerConfig, PlateauConfig
from .reading import flat, parse_yaml, read_config, read_tree, read_yaml, set_key, to_yaml, validate
from .training import EXPERIMENT, ExperimentConfig, Measure, TrainerConfig

__all__ = [
    "BASE",
    "BROUGHT",
    "EXPERIMENT",
    "AblationConfig",
    "AdaptConfig",
    "AugmentConfig",
    "ChunkConfig",
    "Config",
    "CorpusConfig",
    "DataConfig",
    "DecodeConfig",
    "DecodeKeys",
    "DecoderConfig",
    "EncoderConfig",
    "ExperimentConfig",
    "FeaturesConfig",
    "GuardConfig",
    "GuidedAttentionConfig",
    "InitConfig",
    "KaldiFeaturesConfig",
    "LanguageDataConfig",
    "LanguageExperimentConfig",
    "LanguageFolderConfig",
    "LanguageModelConfig",
    "LanguageTrainerConfig",
    "LogMelConfig",
    "LossConfig",
    "MaskPredictConfig",
    "Measure",
    "MinimumErrorConfig",
    "ModelConfig",
    "ModelFolderConfig",
    "NoDecoderConfig",
    "OptimizerConfig",
    "Padding",
    "PhraseListConfig",
    "PlateauConfig",
    "PointerConfig",
    "RowConfig",
    "ScheduledSamplingConfig",
    "SubsamplingConfig",
    "TokenizerConfig",
    "TrainerConfig",
    "TransducerConfig",
    "TransformerDecoderConfig",
    "WhisperFeaturesConfig",
    "WindowConfig",
    "check_fits",
    "flat",
    "parse_yaml",
    "read_config",
    "read_tree",
    "read_yaml",
    "set_key",
    "to_yaml",
    "validate",
]
