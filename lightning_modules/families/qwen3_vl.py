"""Qwen3-VL: features of several depths of the tower, added in the first layers of the language model."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from transformers import Qwen3VLForConditionalGeneration
from typing_extensions import override

from lightning_modules.families.base import ImageInput
from lightning_modules.families.qwen_vl import QwenVL
from lightning_modules.packing import Attention


class Qwen3VL(QwenVL):
    """A Qwen3-VL checkpoint; a picture's features carry those of its depths in further columns.

    Source: DeepStack, arXiv:2406.04334.
    """

    model_types = ("qwen3_vl",)
    model_class = Qwen3VLForConditionalGeneration

    @override
    def encode_images(self, inputs: Sequence[ImageInput]) -> list[Tensor]:
        out = self._vision(inputs)
        return [torch.cat(of_one, dim=1) for of_one in zip(out.pooler_output, *out.deepstack_features, strict=True)]

    @override
    def hidden_states(self, inputs_embeds: Tensor, position_ids: Tensor, attention: Attention) -> Tensor:
        first, *deeper = inputs_embeds.split(self.hidden_size, dim=1)
        added = {}
        if deeper:
            pictures = inputs_embeds[:, self.hidden_size :].any(dim=1)
            added = {
                "visual_pos_masks": pictures[None],
                "deepstack_visual_embeds": [depth[pictures] for depth in deeper],
            }
        out = self.model.model.language_model(
            inputs_embeds=first[None], position_ids=position_ids[:, None], use_cache=False, packing=attention, **added
        )
        return out.last_hidden_state[0]

    @property
    @override
    def _mergers(self) -> list[nn.Module]:
        return [self.model.model.visual.merger, *self.model.model.visual.deepstack_merger_list]
