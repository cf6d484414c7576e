"""Gemma 3, SmolVLM, Idefics3 and InternVL as the hub has them, in small; see `shapes.py`."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import PreTrainedModel

from tests.lightning_modules.families.hub import WORDS, Shape

GEMMA_TEMPLATE = """{{ bos_token }}
{%- if messages[0]['role'] == 'system' -%}
    {%- if messages[0]['content'] is string -%}
        {%- set first_user_prefix = messages[0]['content'] + '\\n\\n' -%}
    {%- else -%}
        {%- set first_user_prefix = messages[0]['content'][0]['text'] + '\\n\\n' -%}
    {%- endif -%}
    {%- set loop_messages = messages[1:] -%}
{%- else -%}
    {%- set first_user_prefix = "" -%}
    {%- set loop_messages = messages -%}
{%- endif -%}
{%- for message in loop_messages -%}
    {%- if (message['role'] == 'user') != (loop.index0 % 2 == 0) -%}
        {{ raise_exception("Conversation roles must alternate user/assistant/user/assistant/...") }}
    {%- endif -%}
    {%- if (message['role'] == 'assistant') -%}
        {%- set role = "model" -%}
    {%- else -%}
        {%- set role = message['role'] -%}
    {%- endif -%}
    {{ '<start_of_turn>' + role + '\\n' + (first_user_prefix if loop.first else "") }}
    {%- if message['content'] is string -%}
        {{ message['content'] | trim }}
    {%- elif message['content'] is iterable -%}
        {%- for item in message['content'] -%}
            {%- if item['type'] == 'image' -%}
                {{ '<start_of_image>' }}
            {%- elif item['type'] == 'text' -%}
                {{ item['text'] | trim }}
            {%- endif -%}
        {%- endfor -%}
    {%- else -%}
        {{ raise_exception("Invalid content type") }}
    {%- endif -%}
    {{ '<end_of_turn>\\n' }}
{%- endfor -%}
{%- if add_generation_prompt -%}
    {{'<start_of_turn>model\\n'}}
{%- endif -%}
"""
IDEFICS_TEMPLATE = (
    "BEGIN{% for message in messages %}{{message['role'] | capitalize}}"
    "{% if message['content'][0]['type'] == 'image' %}{{':'}}{% else %}{{': '}}{% endif %}"
    "{% for line in message['content'] %}{% if line['type'] == 'text' %}{{line['text']}}"
    "{% elif line['type'] == 'image' %}{{ '<image>' }}{% endif %}{% endfor %}<end_of_utterance>\n"
    "{% endfor %}{% if add_generation_prompt %}{{ 'Assistant:' }}{% endif %}"
)
INTERN_TEMPLATE = (
    "{% for message in messages %}{{'<|im_start|>' + message['role'] + '\n'}}"
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}"
    "{% for content in message['content'] %}{% if content['type'] == 'image' %}{{ '<IMG_CONTEXT>\n' }}"
    "{% elif content['type'] == 'video' %}{{ '<video>\n' }}"
    "{% elif content['type'] == 'text' %}{{ content['text'] }}{% endif %}{% endfor %}{% endif %}"
    "{{'<|im_end|>\n'}}{% endfor %}{% if add_generation_prompt %}{{'<|im_start|>assistant\n' }}{% endif %}"
)

HALF = {"image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5]}
TEXT = {
    "vocab_size": "{rows}",
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 2048,
}
VISION = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2}


@dataclass(frozen=True)
class GemmaShape(Shape):
    """Gemma's tokenizer: characters with bytes to fall back on, and runs of newlines that are added tokens."""

    def write_tokenizer(self, folder: Path) -> None:
        """Write it as the hub has it."""
        trained = Tokenizer(models.BPE())
        trained.normalizer = normalizers.Replace(" ", "▁")
        trained.train_from_iterator([WORDS], trainers.BpeTrainer(vocab_size=150, show_progress=False))
        learnt = json.loads(trained.to_str())["model"]
        names = [*(name for name, _ in self.added), *(f"<0x{byte:02X}>" for byte in range(256)), *learnt["vocab"]]
        vocab = {name: number for number, name in enumerate(dict.fromkeys(names))}
        merges = [tuple(pair) for pair in learnt["merges"]]
        backend = Tokenizer(models.BPE(vocab, merges, fuse_unk=True, byte_fallback=True, unk_token="<unk>"))
        backend.normalizer = normalizers.Replace(" ", "▁")
        backend.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
        backend.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
        backend.add_tokens([AddedToken(name, special=special, normalized=False) for name, special in self.added])
        backend.save(str(folder / "tokenizer.json"))
        pictures = {"boi_token": "<start_of_image>", "eoi_token": "<end_of_image>", "image_token": "<image_soft_token>"}
        said = {
            "tokenizer_class": "GemmaTokenizer",
            **{f"{name}_token": f"<{name}>" for name in ("bos", "eos", "unk", "pad", "mask")},
            **pictures,
            "extra_special_tokens": pictures,
            "model_max_length": 10**30,
            "clean_up_tokenization_spaces": False,
        }
        (folder / "tokenizer_config.json").write_text(json.dumps(said))

    def save(self, folder: Path, model: PreTrainedModel, *, tied: bool) -> None:
        """Write weights whose norms are scaled by one plus a weight, and embeddings by the root of their width."""
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if (name.endswith("norm.weight") and "vision" not in name) or "layernorm.weight" in name:
                    parameter -= 1
            embeddings = model.get_input_embeddings().weight
            embeddings *= embeddings.shape[1] ** -0.5
        super().save(folder, model, tied=tied)


GEMMA3 = GemmaShape(
    family="lightning_modules.families.gemma3.Gemma3",
    config={
        "model_type": "gemma3",
        "boi_token_index": "{<start_of_image>}",
        "eoi_token_index": "{<end_of_image>}",
        "image_token_index": "{<image_soft_token>}",
        "eos_token_id": ["{<eos>}", "{<end_of_turn>}"],
        "mm_tokens_per_image": 4,
        "text_config": {**TEXT, "model_type": "gemma3_text", "num_hidden_layers": 3, "head_dim": 16,
                        "query_pre_attn_scalar": 16, "sliding_window": 12, "sliding_window_pattern": 3,
                        "rope_theta": 1000000.0, "rope_local_base_freq": 10000.0,
                        "rope_scaling": {"factor": 8.0, "rope_type": "linear"}},
        "vision_config": {**VISION, "model_type": "siglip_vision_model", "image_size": 28, "patch_size": 7,
                          "vision_use_head": False},
    },
    added=(
        *((f"<{name}>", True) for name in ("pad", "eos", "bos", "unk", "mask")),
        *(("\n" * count, False) for count in range(1, 8)),
        *((f"<{name}>", True) for name in ("start_of_turn", "end_of_turn", "start_of_image", "end_of_image")),
        ("<image_soft_token>", True),
    ),
    end="<end_of_turn>",
    other_ends=("<eos>",),
    template=GEMMA_TEMPLATE,
    preprocessor={**HALF, "image_processor_type": "Gemma3ImageProcessor", "size": {"height": 28, "width": 28},
                  "resample": 2, "image_seq_length": 4, "do_pan_and_scan": None, "processor_class": "Gemma3Processor"},
    on_disk={
        r"model\.language_model\.": "language_model.model.",
        r"model\.vision_tower\.": "vision_tower.vision_model.",
        r"model\.multi_modal_projector\.": "multi_modal_projector.",
    },
    shown=lambda count: f"\n\n<start_of_image>{'<image_soft_token>' * count}<end_of_image>\n\n",
    mark="<start_of_image>",
    bos="<bos>",
)  # fmt: skip
"""One global layer after two with a window of 12 tokens, which all prompts exceed; 4 soft tokens a picture."""


def idefics(kind: str, begin: str) -> Shape:
    """SmolVLM or Idefics3: tiles of 36 pixels, 9 tokens each, of pictures whose longer side is made 144."""
    cut = tuple((f"<row_{row}_col_{column}>", True) for row in range(1, 7) for column in range(1, 7))
    last = ("<global-img>", "<fake_token_around_image>", "<image>", "<end_of_utterance>")
    return Shape(
        family=f"lightning_modules.families.idefics3.{kind}",
        config={
            "model_type": kind.lower(),
            "image_token_id": "{<image>}",
            "scale_factor": 3,
            "text_config": {**TEXT, "model_type": "llama", "rope_theta": 10000.0, "rms_norm_eps": 1e-5},
            "vision_config": {**VISION, "model_type": f"{kind.lower()}_vision", "image_size": 36, "patch_size": 4},
        },
        added=(("<|endoftext|>", True), (begin, True), *cut, *((name, True) for name in last)),
        end="<end_of_utterance>",
        template=IDEFICS_TEMPLATE.replace("BEGIN", begin),
        preprocessor={**HALF, "image_processor_type": f"{kind}ImageProcessor", "size": {"longest_edge": 144},
                      "max_image_size": {"longest_edge": 36}, "resample": 1, "do_image_splitting": True,
                      "do_pad": True, "processor_class": f"{kind}Processor"},
        shown=lambda count: f"<fake_token_around_image><global-img>{'<image>' * count}<fake_token_around_image>",
        mark="<image>",
        bos=begin,
        tokenizer_class="PreTrainedTokenizerFast",
        before_reply=" ",
    )  # fmt: skip


INTERNVL = Shape(
    family="lightning_modules.families.internvl.InternVL",
    config={
        "model_type": "internvl",
        "image_token_id": "{<IMG_CONTEXT>}",
        "image_seq_length": 4,
        "text_config": {**TEXT, "model_type": "qwen2", "rope_theta": 1000000.0, "rms_norm_eps": 1e-6,
                        "use_sliding_window": False, "eos_token_id": "{<|im_end|>}"},
        "vision_config": {**VISION, "model_type": "internvl_vision", "image_size": [24, 24], "patch_size": [6, 6],
                          "attention_bias": True, "layer_scale_init_value": 0.1},
    },
    added=tuple(
        (name, True)
        for name in ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<img>", "</img>", "<IMG_CONTEXT>", "<quad>",
                     "</quad>", "<ref>", "</ref>", "<box>", "</box>", "<video>")
    ),
    end="<|im_end|>",
    template=INTERN_TEMPLATE,
    preprocessor={"image_processor_type": "GotOcr2ImageProcessorFast", "size": {"height": 24, "width": 24},
                  "image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225], "crop_to_patches": False,
                  "min_patches": 1, "max_patches": 5, "processor_class": "InternVLProcessor"},
    on_disk={
        r"model\.language_model\.": "language_model.model.",
        r"lm_head\.": "language_model.lm_head.",
        r"model\.vision_tower\.": "vision_tower.",
        r"model\.multi_modal_projector\.": "multi_modal_projector.",
    },
    shown=lambda count: f"<img>{'<IMG_CONTEXT>' * count}</img>",
    mark="<IMG_CONTEXT>",
    processing={"crop_to_patches": True},
    named={"start_image_token": "<img>", "end_image_token": "</img>", "context_image_token": "<IMG_CONTEXT>",
           "video_token": "<video>"},
)  # fmt: skip
"""Tiles of 24 pixels, 4 tokens each, at most five of them and the whole picture."""

TILED_SHAPES: dict[str, tuple[Shape, bool]] = {
    "gemma3": (GEMMA3, True),
    "smolvlm": (idefics("SmolVLM", "<|im_start|>"), False),
    "idefics3": (idefics("Idefics3", "<|begin_of_text|>"), False),
    "internvl": (INTERNVL, False),
}
