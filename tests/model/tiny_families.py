"""A tiny random model of each family that transformers knows."""

from __future__ import annotations

from typing import Any

from transformers import AutoConfig

SIZES: dict[str, Any] = {
    "vocab_size": 96, "hidden_size": 32, "n_embd": 32, "d_model": 32, "intermediate_size": 48, "ffn_dim": 48,
    "n_inner": 48, "num_hidden_layers": 2, "n_layer": 2, "n_layers": 2, "num_layers": 2, "num_attention_heads": 4,
    "n_head": 4, "n_heads": 4, "num_heads": 4, "num_key_value_heads": 2, "head_dim": 8, "max_position_embeddings": 96,
    "n_positions": 96, "max_seq_len": 96, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
    "decoder_start_token_id": 1, "num_experts": 4, "num_local_experts": 4, "n_routed_experts": 4,
    "num_experts_per_tok": 2, "moe_intermediate_size": 16, "shared_expert_intermediate_size": 16,
    "moe_shared_expert_intermediate_size": 16, "shared_intermediate_size": 16, "n_shared_experts": 1, "n_group": 1,
    "topk_group": 1, "first_k_dense_replace": 1, "q_lora_rank": 16, "kv_lora_rank": 16, "qk_nope_head_dim": 8,
    "qk_rope_head_dim": 8, "v_head_dim": 6, "qk_head_dim": 16, "linear_num_value_heads": 2, "linear_num_key_heads": 2,
    "linear_key_head_dim": 8, "linear_value_head_dim": 8, "mamba_n_heads": 8, "mamba_d_head": 8, "mamba_d_state": 8,
    "mamba_num_heads": 8, "mamba_head_dim": 8, "mamba_n_groups": 1, "state_size": 8, "ssm_state_size": 8,
    "mamba_d_ssm": 64, "n_groups": 1, "chunk_size": 8, "mamba_chunk_size": 8, "conv_kernel": 4, "time_step_rank": 4,
    "word_embed_proj_dim": 32, "rotary_dim": 4, "embedding_size": 32, "encoder_layers": 2, "decoder_layers": 2,
    "encoder_attention_heads": 4, "decoder_attention_heads": 4, "encoder_ffn_dim": 48, "decoder_ffn_dim": 48,
    "max_target_positions": 96, "lru_width": 32, "attention_window_size": 64, "moe_num_experts": 4, "moe_k": 2,
    "mamba_dt_rank": 4, "mlp_hidden_size": 48, "index_n_heads": 2, "index_head_dim": 8, "index_topk": 64,
    "hidden_size_per_layer_input": 8, "vocab_size_per_layer_input": 96, "laurel_rank": 4, "sliding_window": 64,
    "query_pre_attn_scalar": 16, "dim_model_base": 16, "is_decoder": True, "sequence_length": 96,
}
"""A setting is taken where a family's configuration has it."""

MORE: dict[str, dict[str, Any]] = {
    "granitemoehybrid": {"layer_types": ["mamba", "attention"]}, "bamba": {"attn_layer_indices": [1]},
    "jamba": {"attn_layer_period": 2, "attn_layer_offset": 1}, "lfm2": {"layer_types": ["conv", "full_attention"]},
    "mamba2": {"num_heads": 8, "head_dim": 8}, "bailing_hybrid": {"partial_rotary_factor": 1.0},
    "zamba": {"tie_word_embeddings": True},
    "nemotron_h": {"layers_block_type": ["mamba", "attention"]},
}


def tiny_config(kind: str) -> Any:
    """The configuration of a tiny model of a family. Settings that others depend on are those of the family."""
    plain = AutoConfig.for_model(kind)
    fields = plain.to_dict()
    chosen = {name: value for name, value in SIZES.items() if name in fields}
    for name in ("layer_types", "layers_block_type", "block_types", "mlp_layer_types"):
        if isinstance(fields.get(name), list) and fields[name]:
            chosen[name] = two_of(fields[name])
    if "kv_lora_rank" in fields:
        chosen["num_key_value_heads"] = SIZES["num_attention_heads"]
    return AutoConfig.for_model(kind, **(chosen | MORE.get(kind, {})))


def two_of(kinds: list[str]) -> list[str]:
    """Two layers, of different kinds where a family has them."""
    different = list(dict.fromkeys(kinds))
    return (different + different)[:2]
