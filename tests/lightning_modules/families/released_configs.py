"""Shapes of released models as their config.json states them, as far as they decide the number of parameters.

An entry stands here where the number of parameters that it gives is the one that is published for the model, as far as
that is known; the files themselves were not at hand.
"""

from __future__ import annotations

from typing import Any


def qwen_text(hidden: int, layers: int, heads: int, kv_heads: int, intermediate: int, rows: int = 151_936) -> dict:
    """A language model of the Qwen line."""
    return {
        "hidden_size": hidden,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "intermediate_size": intermediate,
        "vocab_size": rows,
    }


def qwen2_5_vl(*text: int, tied: bool, rows: int = 151_936) -> dict[str, Any]:
    vision = {"depth": 32, "hidden_size": 1280, "intermediate_size": 3420, "num_heads": 16, "out_hidden_size": text[0]}
    return {**qwen_text(*text, rows=rows), "vision_config": vision, "tie_word_embeddings": tied}


def qwen3_vl(*text: int, vision: dict[str, Any], tied: bool) -> dict[str, Any]:
    return {
        "text_config": {**qwen_text(*text), "head_dim": 128},
        "vision_config": {**vision, "out_hidden_size": text[0], "num_heads": 16, "num_position_embeddings": 2304},
        "tie_word_embeddings": tied,
    }


LARGE = {"depth": 24, "hidden_size": 1024, "intermediate_size": 4096, "deepstack_visual_indexes": [5, 11, 17]}
SO400M = {"depth": 27, "hidden_size": 1152, "intermediate_size": 4304, "deepstack_visual_indexes": [8, 16, 24]}

SIGLIP = {"hidden_size": 1152, "intermediate_size": 4304, "num_hidden_layers": 27, "num_attention_heads": 16}
"""The tower of Gemma 3 and of the large SmolVLM."""


def internvl(*text: int) -> dict[str, Any]:
    """InternVL3 with the small tower, which is the default of its configuration but for the biases."""
    return {
        "text_config": {"model_type": "qwen2", **qwen_text(*text, rows=151_674), "tie_word_embeddings": False},
        "vision_config": {"attention_bias": True},
        "tie_word_embeddings": False,
    }


RELEASED: dict[str, dict[str, Any]] = {
    "qwen2_vl_2b": {
        **qwen_text(1536, 28, 12, 2, 8960),
        "vision_config": {"depth": 32, "embed_dim": 1280, "mlp_ratio": 4, "num_heads": 16, "hidden_size": 1536},
        "tie_word_embeddings": True,
    },
    "qwen2_5_vl_3b": qwen2_5_vl(2048, 36, 16, 2, 11_008, tied=True),
    "qwen2_5_vl_7b": qwen2_5_vl(3584, 28, 28, 4, 18_944, tied=False, rows=152_064),
    "lingshu_7b": qwen2_5_vl(3584, 28, 28, 4, 18_944, tied=False, rows=152_064),
    "qwen3_vl_2b": qwen3_vl(2048, 28, 16, 8, 6144, vision=LARGE, tied=True),
    "qwen3_vl_4b": qwen3_vl(2560, 36, 32, 8, 9728, vision=LARGE, tied=True),
    "qwen3_vl_8b": qwen3_vl(4096, 36, 32, 8, 12_288, vision=SO400M, tied=False),
    "medgemma_4b": {
        "text_config": {
            **qwen_text(2560, 34, 8, 4, 10_240, rows=262_208),
            "head_dim": 256,
            "sliding_window": 1024,
            "rope_scaling": {"factor": 8.0, "rope_type": "linear"},
        },
        "vision_config": {**SIGLIP, "image_size": 896, "patch_size": 14, "vision_use_head": False},
    },
    "smolvlm2_2b": {
        "text_config": {"model_type": "llama", **qwen_text(2048, 24, 32, 32, 8192, rows=49_280)},
        "vision_config": {**SIGLIP, "image_size": 384, "patch_size": 14},
        "scale_factor": 3,
    },
    "internvl3_2b": internvl(1536, 28, 12, 2, 8960),
    "internvl3_8b": internvl(3584, 28, 28, 4, 18_944),
}
"""Name of the file in configs/model/ -> what its checkpoint's configuration says."""
