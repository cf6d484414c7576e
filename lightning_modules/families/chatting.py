"""A family whose prompts are written by a chat template."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from typing_extensions import override

from lightning_modules.families.base import VisionLanguageFamily, head_logits
from lightning_modules.families.chat_template import ChatTemplate, Turn
from lightning_modules.packing import Attention


class ChattingFamily(VisionLanguageFamily):
    """`config.system` is its own system prompt: empty for none, None for what the template writes by itself.

    Attributes:
        chat: the template.
    """

    chat: ChatTemplate

    @override
    def chat_ids(self, turns: Sequence[Turn], image_tokens: Sequence[int], *, system: str | None = None) -> list[int]:
        return self.chat.chat(turns, image_tokens, self.config.system if system is None else system)

    @override
    def reply_ids(self, text: str) -> list[int]:
        return super().reply_ids(self.chat.before_reply + text)

    @override
    def next_turn_ids(self, text: str) -> list[int]:
        return self.chat.next_turn(text)

    @override
    def plain_ids(self, text: str, image_tokens: Sequence[int]) -> list[int]:
        return self.chat.outside(text, image_tokens)

    # -- the language model, as most have it -------------------------------------------------------------------------

    @override
    def position_ids(self, ids: Sequence[int], grids: Sequence[tuple[int, int, int] | None]) -> Tensor:
        return torch.arange(len(ids))[None]

    @override
    def embed_tokens(self, input_ids: Tensor) -> Tensor:
        return self.model.get_input_embeddings()(input_ids)

    @override
    def hidden_states(self, inputs_embeds: Tensor, position_ids: Tensor, attention: Attention) -> Tensor:
        out = self.model.get_decoder()(
            inputs_embeds=inputs_embeds[None], position_ids=position_ids, use_cache=False, packing=attention
        )
        return out.last_hidden_state[0]

    @override
    def logits(self, hidden: Tensor) -> Tensor:
        return head_logits(self.model.lm_head, hidden)
