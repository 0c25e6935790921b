"""Small models of every family, as settings for transformers: what the comparisons build.

Sizes are odd on purpose: head widths that are not width / heads, groups of key-value heads, hidden widths of their own.
"""

from __future__ import annotations

VOCAB, LONGEST = 97, 64
SIZES = {
    "vocab_size": VOCAB,
    "hidden_size": 48,
    "intermediate_size": 72,
    "num_hidden_layers": 3,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "max_position_embeddings": LONGEST,
    "pad_token_id": None,
    "bos_token_id": None,
    "eos_token_id": None,
}
ENDS = {"pad_token_id": None, "bos_token_id": None, "eos_token_id": None}
GPT = {"vocab_size": VOCAB, "n_embd": 48, "n_layer": 3, "n_head": 6, "n_positions": LONGEST, **ENDS}
MANY = {**SIZES, "num_key_value_heads": 6}
WIDE = {**SIZES, "head_dim": 12}
ORIGINAL = {"original_max_position_embeddings": 16, "rope_theta": 5000.0}
LISTS = {"short_factor": [1.0, 1.1, 1.2, 1.3], "long_factor": [1.5, 2.0, 3.0, 4.0]}
PARTIAL = {"rope_type": "default", "rope_theta": 3000.0, "partial_rotary_factor": 0.5}
MOE = {"num_experts": 5, "num_experts_per_tok": 3, "moe_intermediate_size": 20}
DEEPSEEK = {
    **MANY,
    "num_hidden_layers": 4,
    "first_k_dense_replace": 2,
    "kv_lora_rank": 14,
    "qk_nope_head_dim": 10,
    "qk_rope_head_dim": 6,
    "head_dim": 6,
    "v_head_dim": 9,
    "n_routed_experts": 6,
    "num_experts_per_tok": 2,
    "n_shared_experts": 2,
    "moe_intermediate_size": 20,
    "routed_scaling_factor": 1.4,
}
LOCAL = ["sliding_attention", "sliding_attention", "full_attention"]

# name -> (model_type, settings)
MODELS: dict[str, tuple[str, dict]] = {
    "gpt2": ("gpt2", GPT),
    "gpt2, hidden width and relu": ("gpt2", {**GPT, "n_inner": 80, "activation_function": "relu"}),
    "gptj": ("gptj", {**GPT, "rotary_dim": 4, "tie_word_embeddings": False}),
    "gpt_neox": ("gpt_neox", {**MANY, "rope_parameters": PARTIAL, "use_parallel_residual": True}),
    "gpt_neox, in sequence": ("gpt_neox", {**MANY, "rope_parameters": PARTIAL, "use_parallel_residual": False}),
    "bloom": ("bloom", {"vocab_size": VOCAB, "hidden_size": 48, "n_layer": 3, "n_head": 6, **ENDS}),
    "mpt": (
        "mpt",
        {
            "vocab_size": VOCAB,
            "d_model": 48,
            "n_layers": 3,
            "n_heads": 6,
            "max_seq_len": LONGEST,
            "attn_config": {"alibi": True, "clip_qkv": 1.5, "softmax_scale": 0.2},
            **ENDS,
        },
    ),
    "falcon, many heads": (
        "falcon",
        {**MANY, "alibi": True, "multi_query": False, "parallel_attn": False, "new_decoder_architecture": False},
    ),
    "falcon, one key-value head": (
        "falcon",
        {**MANY, "alibi": False, "multi_query": True, "parallel_attn": True, "new_decoder_architecture": False},
    ),
    "falcon, groups": (
        "falcon",
        {**MANY, "alibi": False, "num_kv_heads": 2, "new_decoder_architecture": True, "bias": True},
    ),
    "llama": ("llama", {**WIDE, "attention_bias": True, "mlp_bias": True}),
    "llama, tied": ("llama", {**SIZES, "tie_word_embeddings": True, "hidden_act": "gelu"}),
    **{
        f"llama, {kind}": ("llama", {**SIZES, "rope_parameters": {"rope_type": kind, **ORIGINAL, **more}})
        for kind, more in {
            "linear": {"factor": 3.0},
            "dynamic": {"factor": 3.0},
            "yarn": {"factor": 4.0, "beta_fast": 4, "beta_slow": 0.5},
            "llama3": {"factor": 4.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0},
            "longrope": {"factor": 4.0, **LISTS},
        }.items()
    },
    "phi": ("phi", {**MANY, "rope_parameters": PARTIAL, "qk_layernorm": True}),
    "phi3": ("phi3", {**SIZES, "sliding_window": 9, "rope_parameters": {"rope_type": "default", "rope_theta": 700.0}}),
    "mistral": ("mistral", {**WIDE, "sliding_window": 7}),
    "qwen2": ("qwen2", SIZES),
    "qwen2, windows": ("qwen2", {**SIZES, "use_sliding_window": True, "sliding_window": 7, "max_window_layers": 2}),
    "qwen3": ("qwen3", {**WIDE, "tie_word_embeddings": True}),
    "olmo": ("olmo", {**SIZES, "clip_qkv": 0.8}),
    "olmo2": ("olmo2", SIZES),
    "gemma": ("gemma", {**SIZES, "head_dim": 12}),
    "gemma2": ("gemma2", {**WIDE, "query_pre_attn_scalar": 20, "sliding_window": 6, "attn_logit_softcapping": 3.0}),
    "gemma3": (
        "gemma3_text",
        {**WIDE, "num_hidden_layers": 5, "sliding_window": 6, "layer_types": LOCAL[:2] + LOCAL},
    ),
    "granite": (
        "granite",
        {
            **SIZES,
            "attention_multiplier": 0.3,
            "embedding_multiplier": 5.0,
            "residual_multiplier": 0.4,
            "logits_scaling": 3.0,
        },
    ),
    "nemotron": ("nemotron", {**SIZES, "head_dim": 8, "rope_parameters": PARTIAL}),
    "stablelm": ("stablelm", {**SIZES, "use_qkv_bias": True, "rope_parameters": PARTIAL}),
    "stablelm, parallel": (
        "stablelm",
        {**SIZES, "qk_layernorm": True, "use_parallel_residual": True, "rope_parameters": PARTIAL},
    ),
    "cohere": ("cohere", {**SIZES, "logit_scale": 0.3, "use_qk_norm": True}),
    "glm4": ("glm4", {**WIDE, "attention_bias": True, "rope_parameters": PARTIAL}),
    "mixtral": ("mixtral", {**WIDE, "num_local_experts": 5, "num_experts_per_tok": 3, "sliding_window": 7}),
    "qwen2_moe": (
        "qwen2_moe",
        {**SIZES, **MOE, "shared_expert_intermediate_size": 20, "norm_topk_prob": True, "mlp_only_layers": [1]},
    ),
    "qwen3_moe": ("qwen3_moe", {**WIDE, **MOE, "norm_topk_prob": False}),
    "qwen3_moe, every other layer": ("qwen3_moe", {**WIDE, **MOE, "norm_topk_prob": True, "decoder_sparse_step": 2}),
    "olmoe": ("olmoe", {**SIZES, "num_experts": 5, "num_experts_per_tok": 3, "clip_qkv": 1.1}),
    "gpt_oss": (
        "gpt_oss",
        {**WIDE, "num_local_experts": 5, "num_experts_per_tok": 3, "sliding_window": 6, "layer_types": LOCAL},
    ),
    "deepseek_v2": ("deepseek_v2", {**DEEPSEEK, "q_lora_rank": 20}),
    "deepseek_v2, groups": (
        "deepseek_v2",
        {**DEEPSEEK, "q_lora_rank": None, "topk_method": "group_limited_greedy", "n_group": 3, "topk_group": 2},
    ),
    "deepseek_v3": ("deepseek_v3", {**DEEPSEEK, "q_lora_rank": 20, "n_group": 3, "topk_group": 2}),
    "deepseek_v3, yarn, all layers mixtures": (
        "deepseek_v3",
        {
            **DEEPSEEK,
            "q_lora_rank": None,
            "first_k_dense_replace": 0,
            "attention_bias": True,
            "rope_interleave": False,
            "norm_topk_prob": False,
            "n_group": 1,
            "topk_group": 1,
            "rope_parameters": {"rope_type": "yarn", **ORIGINAL, "factor": 4.0, "mscale": 0.7, "mscale_all_dim": 1.1},
        },
    ),
}
