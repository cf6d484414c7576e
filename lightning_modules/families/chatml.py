r"""Chats in ChatML, `<|im_start|>role\n…<|im_end|>\n`: how the Qwen-VL and the SmolLM2 families write their turns."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence

from typing_extensions import override

from lightning_modules.families.base import VisionLanguageFamily

START, END = "<|im_start|>", "<|im_end|>"


class ChatMLFamily(VisionLanguageFamily):
    """A family whose turns are ChatML; `config.system` is its own system prompt, empty for none."""

    @abstractmethod
    def picture_ids(self, image_tokens: Sequence[int]) -> list[int]:
        """Pictures in a prompt: placeholders and what stands around them.

        Args:
            image_tokens: placeholder count of each picture.
        """

    @override
    def prompt_ids(
        self, text: str, image_tokens: Sequence[int], *, system: str | None = None, pictures_last: bool = False
    ) -> list[int]:
        start, end = self.tokenizer.convert_tokens_to_ids([START, END])
        told = self.config.system if system is None else system
        before = [start, *self.text_ids(f"system\n{told}"), end, *self.text_ids("\n")] if told else []
        pictures, words = self.picture_ids(image_tokens), self.text_ids(text)
        return [*before, *self._user_turn([*words, *pictures] if pictures_last else [*pictures, *words])]

    @override
    def next_turn_ids(self, text: str) -> list[int]:
        return [*self.text_ids("\n"), *self._user_turn(self.text_ids(text))]

    @override
    def plain_ids(self, text: str, image_tokens: Sequence[int]) -> list[int]:
        return [*self.picture_ids(image_tokens), *self.text_ids(text)]

    def _user_turn(self, asked: Sequence[int]) -> list[int]:
        """A user turn around its tokens, and the beginning of the assistant's."""
        start, end = self.tokenizer.convert_tokens_to_ids([START, END])
        after = [end, *self.text_ids("\n"), start, *self.text_ids("assistant\n")]
        return [start, *self.text_ids("user\n"), *asked, *after]
