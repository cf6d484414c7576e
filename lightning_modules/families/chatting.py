"""A family whose prompts are written by a chat template."""

from __future__ import annotations

from collections.abc import Sequence

from typing_extensions import override

from lightning_modules.families.base import VisionLanguageFamily
from lightning_modules.families.chat_template import ChatTemplate


class ChattingFamily(VisionLanguageFamily):
    """`config.system` is its own system prompt: empty for none, None for what the template writes by itself.

    Attributes:
        chat: the template.
    """

    chat: ChatTemplate

    @override
    def prompt_ids(
        self, text: str, image_tokens: Sequence[int], *, system: str | None = None, pictures_last: bool = False
    ) -> list[int]:
        told = self.config.system if system is None else system
        return self.chat.prompt(text, image_tokens, told, pictures_last=pictures_last)

    @override
    def reply_ids(self, text: str) -> list[int]:
        return super().reply_ids(self.chat.before_reply + text)

    @override
    def next_turn_ids(self, text: str) -> list[int]:
        return self.chat.next_turn(text)

    @override
    def plain_ids(self, text: str, image_tokens: Sequence[int]) -> list[int]:
        return self.chat.outside(text, image_tokens)
