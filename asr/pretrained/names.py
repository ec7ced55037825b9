"""Names that other projects give to the parts of a Transformer.

Their models have the same architecture as ours; they differ in the names of the parts and in whether queries, keys
and values share one matrix.
"""

from __future__ import annotations

from dataclasses import dataclass

# Parts of a decoder layer here, each with its name elsewhere; several names mean that their matrices are stacked.
# An encoder layer has the same parts except cross-attention.
HUGGING_FACE = {
    "self_attention.qkv": "self_attn.q_proj self_attn.k_proj self_attn.v_proj",
    "self_attention.out": "self_attn.out_proj",
    "self_residual.norm": "self_attn_layer_norm",
    "cross_attention.query": "encoder_attn.q_proj",
    "cross_attention.key_value": "encoder_attn.k_proj encoder_attn.v_proj",
    "cross_attention.out": "encoder_attn.out_proj",
    "cross_residual.norm": "encoder_attn_layer_norm",
    "feed_forward.0": "fc1",
    "feed_forward.3": "fc2",
    "feed_forward_residual.norm": "final_layer_norm",
}
OPENAI = {
    "self_attention.qkv": "attn.query attn.key attn.value",
    "self_attention.out": "attn.out",
    "self_residual.norm": "attn_ln",
    "cross_attention.query": "cross_attn.query",
    "cross_attention.key_value": "cross_attn.key cross_attn.value",
    "cross_attention.out": "cross_attn.out",
    "cross_residual.norm": "cross_attn_ln",
    "feed_forward.0": "mlp.0",
    "feed_forward.3": "mlp.2",
    "feed_forward_residual.norm": "mlp_ln",
}
CTRANSLATE2 = {
    "self_attention.qkv": "self_attention.linear_0",
    "self_attention.out": "self_attention.linear_1",
    "self_residual.norm": "self_attention.layer_norm",
    "cross_attention.query": "attention.linear_0",
    "cross_attention.key_value": "attention.linear_1",
    "cross_attention.out": "attention.linear_2",
    "cross_residual.norm": "attention.layer_norm",
    "feed_forward.0": "ffn.linear_0",
    "feed_forward.3": "ffn.linear_1",
    "feed_forward_residual.norm": "ffn.layer_norm",
}


@dataclass(frozen=True)
class WhisperNames:
    """Names that a project gives to the parts of Whisper."""

    parts: dict[str, str]
    encoder: str
    decoder: str
    convs: tuple[str, str]
    norms: tuple[str, str]
    embedding: str
    position: str
    encoder_position: str
    output: str


WHISPER_HUGGING_FACE = WhisperNames(
    parts=HUGGING_FACE,
    encoder="model.encoder.layers.{i}",
    decoder="model.decoder.layers.{i}",
    convs=("model.encoder.conv1", "model.encoder.conv2"),
    norms=("model.encoder.layer_norm", "model.decoder.layer_norm"),
    embedding="model.decoder.embed_tokens.weight",
    position="model.decoder.embed_positions.weight",
    encoder_position="model.encoder.embed_positions.weight",
    output="proj_out.weight",
)
WHISPER_OPENAI = WhisperNames(
    parts=OPENAI,
    encoder="encoder.blocks.{i}",
    decoder="decoder.blocks.{i}",
    convs=("encoder.conv1", "encoder.conv2"),
    norms=("encoder.ln_post", "decoder.ln"),
    embedding="decoder.token_embedding.weight",
    position="decoder.positional_embedding",
    encoder_position="encoder.positional_embedding",
    output="",
)
WHISPER_CTRANSLATE2 = WhisperNames(
    parts=CTRANSLATE2,
    encoder="encoder.layer_{i}",
    decoder="decoder.layer_{i}",
    convs=("encoder.conv1", "encoder.conv2"),
    norms=("encoder.layer_norm", "decoder.layer_norm"),
    embedding="decoder.embeddings.weight",
    position="decoder.position_encodings.encodings",
    encoder_position="encoder.position_encodings.encodings",
    output="decoder.projection.weight",
)
