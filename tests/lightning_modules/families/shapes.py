"""The published checkpoints that the contract is held on. A family adds its `Shape` and a line to `SHAPES`."""

from __future__ import annotations

from tests.lightning_modules.families.hub import Shape
from tests.lightning_modules.families.tiled_shapes import TILED_SHAPES

QWEN_TOKENS = (
    *((f"<|{name}|>", True) for name in ("endoftext", "im_start", "im_end", "object_ref_start", "object_ref_end")),
    *((f"<|{name}|>", True) for name in ("box_start", "box_end", "quad_start", "quad_end", "vision_start")),
    *((f"<|{name}|>", True) for name in ("vision_end", "vision_pad", "image_pad", "video_pad")),
    *(("<tool_call>", False), ("</tool_call>", False)),
    *((f"<|{name}|>", False) for name in ("fim_prefix", "fim_middle", "fim_suffix", "fim_pad")),
    *((f"<|{name}|>", False) for name in ("repo_name", "file_sep")),
)
QWEN3_TOKENS = (
    *QWEN_TOKENS,
    *((name, False) for name in ("<tool_response>", "</tool_response>", "<think>", "</think>")),
)
"""The added tokens of the Qwen2 and Qwen3 tokenizers, in their order."""

QWEN_VL_TEMPLATE = (
    "{% set image_count = namespace(value=0) %}{% set video_count = namespace(value=0) %}"
    "{% for message in messages %}{% if loop.first and message['role'] != 'system' %}<|im_start|>system\n"
    "You are a helpful assistant.<|im_end|>\n{% endif %}<|im_start|>{{ message['role'] }}\n"
    "{% if message['content'] is string %}{{ message['content'] }}<|im_end|>\n{% else %}"
    "{% for content in message['content'] %}"
    "{% if content['type'] == 'image' or 'image' in content or 'image_url' in content %}"
    "{% set image_count.value = image_count.value + 1 %}"
    "{% if add_vision_id %}Picture {{ image_count.value }}: {% endif %}<|vision_start|><|image_pad|><|vision_end|>"
    "{% elif content['type'] == 'video' or 'video' in content %}{% set video_count.value = video_count.value + 1 %}"
    "{% if add_vision_id %}Video {{ video_count.value }}: {% endif %}<|vision_start|><|video_pad|><|vision_end|>"
    "{% elif 'text' in content %}{{ content['text'] }}{% endif %}{% endfor %}<|im_end|>\n{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
QWEN3_VL_TEMPLATE = (
    "{%- set image_count = namespace(value=0) %}{%- for message in messages %}"
    "{{- '<|im_start|>' + message.role + '\\n' }}{%- if message.content is string %}{{- message.content }}{%- else %}"
    "{%- for content in message.content %}"
    "{%- if content.type == 'image' or 'image' in content or 'image_url' in content %}"
    "{%- set image_count.value = image_count.value + 1 %}<|vision_start|><|image_pad|><|vision_end|>"
    "{%- elif 'text' in content %}{{- content.text }}{%- endif %}{%- endfor %}{%- endif %}{{- '<|im_end|>\\n' }}"
    "{%- endfor %}{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}"
)
QWEN_TEMPLATE = (
    "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}"
    "{{ '<|im_start|>system\\nYou are a helpful assistant.<|im_end|>\\n' }}{% endif %}"
    "{{'<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + '\\n'}}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
LLAMA_TEMPLATE = (
    "{% set loop_messages = messages %}{% for message in loop_messages %}{% set content = '<|start_header_id|>' + "
    "message['role'] + '<|end_header_id|>\\n\\n'+ message['content'] | trim + '<|eot_id|>' %}"
    "{% if loop.index0 == 0 %}{% set content = bos_token + content %}{% endif %}{{ content }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}{% endif %}"
)

CLIP = {"image_mean": [0.48145466, 0.4578275, 0.40821073], "image_std": [0.26862954, 0.26130258, 0.27577711]}
HALF = {"image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5]}
PATCHES = {"temporal_patch_size": 2, "merge_size": 2}

TEXT = {
    "vocab_size": "{rows}",
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 2048,
    "rms_norm_eps": 1e-6,
    "rope_theta": 10000.0,
}
MROPE = {"rope_scaling": {"type": "mrope", "mrope_section": [2, 1, 1]}}
QWEN_IDS = {
    "bos_token_id": "{<|endoftext|>}",
    "eos_token_id": "{<|im_end|>}",
    "image_token_id": "{<|image_pad|>}",
    "video_token_id": "{<|video_pad|>}",
    "vision_start_token_id": "{<|vision_start|>}",
    "vision_end_token_id": "{<|vision_end|>}",
}
OLD_NAMES = {r"model\.language_model\.": "model.", r"model\.visual\.": "visual."}
"""What Qwen2-VL and Qwen2.5-VL have on the hub, from before transformers nested the language model."""


def qwen_vl(family: str, config: dict, preprocessor: dict, **more) -> Shape:
    """A checkpoint of the Qwen-VL line."""
    plain = {"tokens": QWEN_TOKENS, "template": QWEN_VL_TEMPLATE, "on_disk": OLD_NAMES} | more
    return Shape(
        family=f"lightning_modules.families.{family}",
        config=config,
        added=plain["tokens"],
        end="<|im_end|>",
        other_ends=("<|endoftext|>",),
        template=plain["template"],
        preprocessor=preprocessor,
        on_disk=plain["on_disk"],
        mark="<|image_pad|>",
        shown=lambda count: "<|image_pad|>" * count,
    )


QWEN2_VL = qwen_vl(
    "qwen2_vl.Qwen2VL",
    {**TEXT, **MROPE, **QWEN_IDS, "model_type": "qwen2_vl", "use_sliding_window": False, "sliding_window": 32768,
     "max_window_layers": 28, "attention_dropout": 0.0, "hidden_act": "silu",
     "vision_config": {"depth": 2, "embed_dim": 32, "mlp_ratio": 2, "num_heads": 2, "in_chans": 3, "hidden_size": 32,
                       "patch_size": 14, "spatial_merge_size": 2, "spatial_patch_size": 14, "temporal_patch_size": 2}},
    {**CLIP, **PATCHES, "min_pixels": 3136, "max_pixels": 12845056, "patch_size": 14,
     "image_processor_type": "Qwen2VLImageProcessor", "processor_class": "Qwen2VLProcessor"},
)  # fmt: skip
QWEN2_5_VL = qwen_vl(
    "qwen2_5_vl.Qwen2_5_VL",
    {**TEXT, **MROPE, **QWEN_IDS, "model_type": "qwen2_5_vl", "use_sliding_window": False, "sliding_window": 32768,
     "max_window_layers": 28, "attention_dropout": 0.0, "hidden_act": "silu",
     "vision_config": {"depth": 2, "hidden_act": "silu", "hidden_size": 32, "intermediate_size": 48, "num_heads": 2,
                       "in_chans": 3, "out_hidden_size": 32, "patch_size": 14, "spatial_merge_size": 2,
                       "spatial_patch_size": 14, "window_size": 56, "fullatt_block_indexes": [1],
                       "tokens_per_second": 2, "temporal_patch_size": 2}},
    {**CLIP, **PATCHES, "min_pixels": 3136, "max_pixels": 12845056, "patch_size": 14,
     "image_processor_type": "Qwen2VLImageProcessor", "processor_class": "Qwen2_5_VLProcessor"},
)  # fmt: skip
QWEN3_VL = qwen_vl(
    "qwen3_vl.Qwen3VL",
    {"model_type": "qwen3_vl", **{key: value for key, value in QWEN_IDS.items() if key[:3] not in ("bos", "eos")},
     "text_config": {**TEXT, "model_type": "qwen3_vl_text", "num_hidden_layers": 3, "head_dim": 16,
                     "attention_bias": False, "bos_token_id": "{<|endoftext|>}", "eos_token_id": "{<|im_end|>}",
                     "rope_scaling": {"mrope_interleaved": True, "mrope_section": [4, 2, 2], "rope_type": "default"}},
     "vision_config": {"model_type": "qwen3_vl", "depth": 3, "hidden_size": 32, "intermediate_size": 48,
                       "num_heads": 2, "in_channels": 3, "out_hidden_size": 32, "patch_size": 16,
                       "spatial_merge_size": 2, "temporal_patch_size": 2, "num_position_embeddings": 64,
                       "deepstack_visual_indexes": [0, 1], "hidden_act": "gelu_pytorch_tanh"}},
    {**HALF, **PATCHES, "patch_size": 16, "size": {"longest_edge": 16777216, "shortest_edge": 4096},
     "image_processor_type": "Qwen2VLImageProcessorFast", "processor_class": "Qwen3VLProcessor"},
    tokens=QWEN3_TOKENS, template=QWEN3_VL_TEMPLATE, on_disk={},
)  # fmt: skip

FAMILIES = "lightning_modules.families."
SMALL_TEXT = {**TEXT, "bos_token_id": "{<|endoftext|>}", "eos_token_id": "{<|im_end|>}", "hidden_act": "silu"}
WINDOWS = {"use_sliding_window": False, "sliding_window": 131072, "max_window_layers": 28}
QWEN2 = Shape(
    f"{FAMILIES}language_model.Qwen2", {**SMALL_TEXT, **WINDOWS, "model_type": "qwen2"}, QWEN_TOKENS, "<|im_end|>",
    QWEN_TEMPLATE,
)  # fmt: skip
QWEN3 = Shape(
    f"{FAMILIES}language_model.Qwen3",
    {**SMALL_TEXT, **WINDOWS, "model_type": "qwen3", "head_dim": 16, "attention_bias": False},
    QWEN3_TOKENS, "<|im_end|>", QWEN_TEMPLATE,
)  # fmt: skip
LLAMA_TOKENS = tuple((f"<|{name}|>", True) for name in ("begin_of_text", "end_of_text", "start_header_id")) + tuple(
    (f"<|{name}|>", True) for name in ("end_header_id", "eot_id")
)
LLAMA = Shape(
    f"{FAMILIES}language_model.Llama",
    {**TEXT, "model_type": "llama", "bos_token_id": "{<|begin_of_text|>}", "eos_token_id": "{<|eot_id|>}"},
    LLAMA_TOKENS, "<|eot_id|>", LLAMA_TEMPLATE, bos="<|begin_of_text|>", tokenizer_class="PreTrainedTokenizerFast",
)  # fmt: skip

SHAPES: dict[str, tuple[Shape, bool]] = {
    "qwen2_vl": (QWEN2_VL, True),
    "qwen2_5_vl": (QWEN2_5_VL, False),
    "qwen2_5_vl_tied": (QWEN2_5_VL, True),
    "qwen3_vl": (QWEN3_VL, False),
    "qwen2": (QWEN2, True),
    "qwen3": (QWEN3, False),
    "llama": (LLAMA, True),
    **TILED_SHAPES,
}
"""Name -> checkpoint, and whether its head is the embeddings'."""
SLOW = ("qwen2_vl", "qwen2_5_vl_tied", "qwen2", "qwen3", "idefics3")
"""Those that differ little from another one, and are left to `make test-all`."""
