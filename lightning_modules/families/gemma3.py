"""Gemma 3 with pictures (MedGemma and others) behind the family interface."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from PIL import Image
from torch import Tensor, nn
from transformers import Gemma3ForConditionalGeneration
from transformers.models.gemma3.image_processing_pil_gemma3 import Gemma3ImageProcessorPil
from typing_extensions import override

from lightning_modules.families.base import ImageInput
from lightning_modules.families.chat_template import ChatTemplate
from lightning_modules.families.published import PublishedFamily
from lightning_modules.packing import Attention


@dataclass(frozen=True)
class OneSquare:
    """A picture stretched to the square that the vision tower takes; see `VisionLanguageFamily.to_input`."""

    image_processor: Gemma3ImageProcessorPil
    most_tokens: int
    """Placeholder tokens of every picture."""

    def __call__(self, image: Image.Image) -> ImageInput:
        """Pixels are (1, 3, S, S); cut-outs of long pictures (pan and scan) are not made."""
        out = self.image_processor(images=[image], do_pan_and_scan=False, return_tensors="pt")
        return ImageInput(out["pixel_values"], self.most_tokens)

    def tokens(self, width: int, height: int) -> int:
        """The same of every picture, whatever its shape."""
        return self.most_tokens


class Gemma3(PublishedFamily):
    """A Gemma 3 checkpoint: layers with a window beside global ones, and pictures that are seen whole.

    Source: Gemma 3, arXiv:2503.19786; MedGemma, arXiv:2507.05201.
    """

    model_types = ("gemma3",)
    model_class = Gemma3ForConditionalGeneration
    attention_kinds = ("full_attention", "sliding_attention")
    lora_targets = r".*language_model.*\.(q_proj|k_proj|v_proj|o_proj|gate_proj|up_proj|down_proj)"
    place, begin, end = "<image_soft_token>", "<start_of_image>", "<end_of_image>"
    whole_pictures = True

    @override
    def _chat(self) -> ChatTemplate:
        return ChatTemplate(self.tokenizer, self.template, self.place, self.begin, self._written)

    def _written(self, n_tokens: int) -> str:
        """A picture in a prompt, as the released processor writes it."""
        return f"\n\n{self.begin}{self.place * n_tokens}{self.end}\n\n"

    @override
    def _picture_input(self) -> OneSquare:
        return OneSquare(self.image_processor, self.model.config.mm_tokens_per_image)

    @override
    def encode_images(self, inputs: Sequence[ImageInput]) -> list[Tensor]:
        pixels = torch.cat([item.pixels for item in inputs]).to(self.model.device)
        return list(self.model.model.get_image_features(pixels).pooler_output)

    @override
    def hidden_states(self, inputs_embeds: Tensor, position_ids: Tensor, attention: Attention) -> Tensor:
        out = self.model.model.language_model(
            inputs_embeds=inputs_embeds[None],
            position_ids=position_ids,
            attention_mask={"full_attention": None, "sliding_attention": None},  # `attention` knows who sees whom
            use_cache=False,
            packing=attention,
        )
        return out.last_hidden_state[0]

    @override
    def vision_parameters(self) -> list[nn.Parameter]:
        return list(self.model.model.vision_tower.parameters())

    @override
    def projector_parameters(self) -> list[nn.Parameter]:
        return list(self.model.model.multi_modal_projector.parameters())
