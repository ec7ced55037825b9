"""The options that make up a model: what the `config.yaml` of a model folder holds, as frozen pydantic models."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Discriminator, Field, Tag, model_validator

from asr.errors import ConfigError
from asr.text import check_name


class Config(BaseModel):
    """Base of all options: immutable, and strict about unknown keys."""

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())


# Far above any use; a hostile file cannot ask for a model that takes hours to build.
Size = Annotated[int, Field(gt=0, le=65_536)]
Rate = Annotated[int, Field(ge=1000, le=384_000)]
Layers = Annotated[int, Field(ge=0, le=256)]


def _known(normalizer: str) -> str:
    try:
        return check_name(normalizer)
    except ConfigError as e:
        raise ValueError(e) from None


# A name and never a file: model folders hold all that they need.
NormalizerName = Annotated[str, AfterValidator(_known)]


class LogMelConfig(Config):
    """Log-mel filter bank over frames that lie wholly inside the recording."""

    kind: Literal["log_mel"] = "log_mel"
    sample_rate_hz: Rate = 16_000
    n_mels: int = Field(80, gt=0, le=512)
    window_ms: float = Field(25.0, ge=1, le=1000)
    hop_ms: float = Field(10.0, ge=1, le=1000)
    normalization: Literal["none", "utterance", "global"] = Field(
        "utterance", description="mean and variance of each utterance's own frames, or of the training set"
    )


class WhisperFeaturesConfig(Config):
    """Whisper's log-mel: centred frames over a window of fixed length, clamped 8 decades below the maximum."""

    kind: Literal["whisper"] = "whisper"
    sample_rate_hz: Rate = 16_000
    n_mels: int = Field(80, gt=0, le=512)
    window_s: float = Field(30.0, gt=0, le=3600)


class KaldiFeaturesConfig(Config):
    """Kaldi's log-mel filter bank of 25 ms every 10 ms, as fairseq's Speech2Text reads it."""

    kind: Literal["kaldi"] = "kaldi"
    sample_rate_hz: Rate = 16_000
    n_mels: int = Field(80, gt=3, le=512)
    normalize_means: bool = Field(True, description="every mel bin of an utterance gets mean 0")
    normalize_vars: bool = Field(True, description="every mel bin of an utterance gets variance 1")


def _features_kind(value: Any) -> str:
    kind = value.get("kind", "log_mel") if isinstance(value, dict) else getattr(value, "kind", "log_mel")
    return str(kind)


FeaturesConfig = Annotated[
    Annotated[LogMelConfig, Tag("log_mel")]
    | Annotated[WhisperFeaturesConfig, Tag("whisper")]
    | Annotated[KaldiFeaturesConfig, Tag("kaldi")],
    Discriminator(_features_kind),
]


class SubsamplingConfig(Config):
    """Convolutional front end that shortens the frame sequence by `factor`."""

    kind: Literal["conv1d", "conv2d", "glu"] = Field(
        "conv1d", description="glu: 1-D convolutions with gated linear units (fairseq's Speech2Text)"
    )
    factor: Literal[2, 4, 8] = 4
    channels: Size | None = Field(None, description="inner channels; default: the encoder's width")


FirstPosition = Annotated[int, Field(ge=0, le=1024, description="position of the first vector; fairseq's is 2")]
Scaled = Annotated[bool, Field(description="vectors are multiplied by sqrt(dim) before positions are added")]


Padding = Annotated[
    Literal["mask", "keep", "recall"],
    Field(
        description="mask: padding is never attended; keep: silence that fills a window is input (Whisper); "
        "recall: it is remembered instead of computed"
    ),
]


class EncoderConfig(Config):
    """Subsampling, sinusoidal positions and Transformer layers."""

    subsampling: SubsamplingConfig = SubsamplingConfig()
    layers: Layers = 6
    dim: Size = 256
    heads: Size = 4
    feed_forward: Size = 1024
    dropout: float = Field(0.1, ge=0, lt=1)
    norm: Literal["pre", "post"] = "pre"
    padding: Padding = "mask"
    keep_s: float = Field(0.5, ge=0, description="with padding=recall: silence after the speech that is computed")
    first_position: FirstPosition = 0
    scaled: Scaled = False

    @model_validator(mode="after")
    def _heads_divide_dim(self) -> EncoderConfig:
        if self.dim % self.heads or self.dim % 2:
            raise ValueError(f"dim={self.dim} must be even and a multiple of heads={self.heads}")
        return self


class DecoderConfig(Config):
    """Autoregressive Transformer decoder; its width is the encoder's."""

    layers: Layers = Field(3, gt=0)
    heads: Size = 4
    feed_forward: Size = 1024
    dropout: float = Field(0.1, ge=0, lt=1)
    norm: Literal["pre", "post"] = "pre"
    max_length: int = Field(448, gt=1, le=65_536, description="longest target in tokens, start tokens included")
    tied_output: bool = Field(True, description="the output projection is the embedding matrix")
    position: Literal["learned", "sinusoidal"] = "learned"
    first_position: FirstPosition = 0
    scaled: Scaled = False
    alignment_heads: tuple[tuple[int, int], ...] = Field(
        (),
        description="(layer, head) pairs whose cross-attention follows time; empty: all of the upper layers",
    )

    @model_validator(mode="after")
    def _parts_fit(self) -> DecoderConfig:
        for layer, head in self.alignment_heads:
            if not (0 <= layer < self.layers and 0 <= head < self.heads):
                raise ValueError(f"alignment_heads: there is no head {head} in a layer {layer}")
        if self.position == "learned" and self.first_position:
            raise ValueError("first_position is for position=sinusoidal")
        return self


class ModelConfig(Config):
    """Encoder, decoder and optional CTC head."""

    encoder: EncoderConfig = EncoderConfig()
    decoder: DecoderConfig = DecoderConfig()
    ctc: bool = Field(True, description="a CTC head on the encoder")
    activation: Literal["relu", "gelu"] = "gelu"

    @model_validator(mode="after")
    def _decoder_heads_divide_dim(self) -> ModelConfig:
        if self.encoder.dim % self.decoder.heads:
            raise ValueError(f"encoder.dim={self.encoder.dim} must be a multiple of decoder.heads={self.decoder.heads}")
        return self


def check_window(features: FeaturesConfig, model: ModelConfig) -> None:
    """ValueError if silence is to be remembered where no window is filled up with it."""
    if model.encoder.padding == "recall" and not isinstance(features, WhisperFeaturesConfig):
        raise ValueError("model.encoder.padding=recall is for features with a window: features.kind=whisper")


class GuardConfig(Config):
    """Guards against texts that nobody said (asr.guards); log-probabilities are means over a text's tokens."""

    enabled: bool = Field(False, description="imported models of Whisper bring them switched on")
    silence_db: float = Field(
        -70.0, le=0, description="windows without a sample above this are silence (dB full scale)"
    )
    doubt_log_prob: float = Field(-0.7, le=0, description="less probable texts are looked at more closely")
    no_speech: float = Field(0.6, ge=0, le=1, description="texts are dropped above this no-speech probability and ...")
    no_speech_log_prob: float = Field(-1.0, le=0, description="... below this log-probability")
    min_log_prob: float = Field(-2.0, le=0, description="less probable texts are dropped in any case")
    heard_share: float = Field(
        0.25, ge=0, le=1, description="texts are dropped if attention moves on at a smaller share of their tokens"
    )
    short_no_speech: float = Field(
        0.2, ge=0, le=1, description="no-speech probability above which this also holds for texts of 1 to 3 tokens"
    )
    stalled_tokens: int = Field(8, ge=2, description="a text ends where attention stands still for so many tokens")
    compression_ratio: float = Field(2.4, gt=0, description="texts that zlib makes shorter by more repeat themselves")
    loop_times: int = Field(4, ge=2, description="the same 1 to 8 tokens so often in a row are a loop")
    temperatures: tuple[Annotated[float, Field(gt=0)], ...] = Field(
        (0.2, 0.4, 0.6, 0.8, 1.0), description="a text in a loop is searched for anew by sampling at these, in turn"
    )
    fallback_log_prob: float = Field(-1.0, le=0, description="less probable samples are not taken")
    wider_beam: int = Field(5, ge=1, le=1000, description="beam for improbable texts, if decode's is narrower; 1: none")
    wider_log_prob: float = Field(-0.5, le=0, description="less probable texts are searched for again with that beam")


class DecodeConfig(Config):
    """Beam search; greedy search is beam_size 1."""

    beam_size: int = Field(1, ge=1, le=1000)
    ctc_weight: float = Field(0.0, ge=0, le=1, description="share of the CTC prefix score (joint decoding)")
    length_bonus: float = Field(0.0, description="added to the score for every token")
    length_penalty: float = Field(1.0, ge=0, description="final scores are divided by length ** length_penalty")
    max_tokens_per_s: float = Field(30.0, gt=0, description="the cap on the text's length, tied to the audio's")
    n_best: int = Field(1, ge=1, le=1000)
    window_s: float = Field(30.0, gt=0, le=3600, description="recordings up to this length are decoded whole")
    cut_s: float = Field(30.0, gt=0, le=3600, description="longer ones are cut into parts of at most this length")
    guards: GuardConfig = GuardConfig()
    phrases: Path | None = Field(None, description="a phrase list: names and words to listen for, a line each")
    phrase_bonus: float = Field(1.0, ge=0, description="nats for every token along a phrase")


class TokenizerConfig(Config):
    """Which units the text is cut into; trained on the training split alone."""

    kind: Literal["character", "unigram", "bpe", "whisper", "speech2text"] = "character"
    vocab_size: int = Field(500, gt=4, le=1_000_000, description="for unigram and bpe")
    languages: tuple[str, ...] = Field((), description="language tokens, such as [en, es]; none: no such token")


class ModelFolderConfig(Config):
    """What `config.yaml` of a model folder holds: all that is needed to turn audio into text."""

    version: Literal[1] = 1
    features: FeaturesConfig = LogMelConfig()
    model: ModelConfig = ModelConfig()
    tokenizer: TokenizerConfig = TokenizerConfig()
    decode: DecodeConfig = DecodeConfig()
    normalizer: NormalizerName = Field("none", description="the text normaliser that training texts went through")

    @model_validator(mode="after")
    def _silence_has_a_window(self) -> ModelFolderConfig:
        check_window(self.features, self.model)
        return self
