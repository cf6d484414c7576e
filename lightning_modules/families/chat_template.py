"""Chats as a checkpoint's own template writes them, tokenised as its tokenizer reads the whole of them.

A prompt is rendered at once and cut at control tokens alone: text on the two sides of a line break may be one token.
What looks like a control token in a question stays text: it is hidden from the template's, and tokenised apart.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from transformers import PreTrainedTokenizerBase

ASKED, REPLIED = "\ue000", "\ue001"
"""Stand for a user's and an assistant's text where only what is around it is wanted."""
PRIVATE = range(0xE002, 0xF900)
"""Characters that stand for control tokens in a question's text, as far as it does not have them itself."""

Messages = list[dict[str, Any]]
Turn = tuple[str, Sequence[str | None]]
"""Who speaks, `user` or `assistant`, and what: texts, and None for a picture."""


class TemplateError(ValueError):
    """A checkpoint's chat template cannot be used."""


@dataclass(frozen=True)
class ChatTemplate:
    """How a checkpoint writes a chat.

    Attributes:
        tokenizer: the checkpoint's.
        text: the template, in Jinja.
        place: the token that stands for one place of a picture; None in a language model.
        mark: what the template writes for a picture; None where that is `place`.
        picture: the text in the place of `mark` for a picture of so many places; None where it is `place` so often.
        parts: whether a message is a list of parts, pictures and texts, or one text.
    """

    tokenizer: PreTrainedTokenizerBase
    text: str
    place: str | None = None
    mark: str | None = None
    picture: Callable[[int], str] | None = None
    parts: bool = True

    def chat(self, turns: Sequence[Turn], image_tokens: Sequence[int], system: str | None) -> list[int]:
        """Tokens of a chat up to where the assistant begins.

        Args:
            turns: what was said, the last of them by the user.
            image_tokens: places of each picture, in the order of the turns.
            system: of the system turn; None is what the template writes by itself, empty leaves the turn out.
        """
        hidden: dict[str, str] = {}
        beside = "".join([system or "", *(part for _, parts in turns for part in parts if part is not None)])
        told = [] if not system else [{"role": "system", "content": self._content(self._hide(system, hidden, beside))}]
        said = [{"role": role, "content": self._parts(parts, hidden, beside)} for role, parts in turns]
        rendered = self._render([*told, *said])
        if system == "":
            rendered = rendered.replace(self._unasked, "", 1)
        return self._ids(self._with_pictures(rendered, image_tokens), hidden)

    def next_turn(self, text: str) -> list[int]:
        """Tokens from the end token of an assistant's turn, without it, to the beginning of the next."""
        hidden: dict[str, str] = {}
        rendered = self._render([*self._one_exchange, *self._user(self._hide(text, hidden), 0)])
        after = rendered.partition(REPLIED)[2].lstrip()
        return self._ids(after.removeprefix(self.end), hidden)

    def outside(self, text: str, image_tokens: Sequence[int]) -> list[int]:
        """Tokens of pictures and then a text, as they stand in a turn, but outside any."""
        hidden: dict[str, str] = {}
        kept = self._hide(text, hidden)
        return self._ids(self._with_pictures(self._shown * len(image_tokens), image_tokens) + kept, hidden)

    @cached_property
    def end(self) -> str:
        """The control token that ends an assistant's turn.

        Raises:
            TemplateError: there is none.
        """
        after = self._render([*self._one_exchange, *self._user(ASKED, 0)]).partition(REPLIED)[2].lstrip()
        found = self._controls.match(after)
        if found is None:
            raise TemplateError(
                f"the chat template ends an assistant's turn with {after[:20]!r}, which is no control token of the "
                "tokenizer; is it the template of a model that was tuned to chats?"
            )
        return found[0]

    @cached_property
    def before_reply(self) -> str:
        """Blanks that the template writes between what a prompt ends with and a reply; most write none."""
        asked = self._render(self._user(ASKED, 0))
        before = self._render([*self._one_exchange, *self._user(ASKED, 0)]).partition(REPLIED)[0]
        blanks = before.removeprefix(asked) if before.startswith(asked) else ""
        return blanks if blanks.isspace() else ""

    @property
    def _one_exchange(self) -> Messages:
        return [*self._user(ASKED, 0), {"role": "assistant", "content": self._content(REPLIED)}]

    @cached_property
    def _unasked(self) -> str:
        """The system turn that the template writes where none is given."""
        alone = self._render(self._user(ASKED, 0))
        later = self._render([*self._one_exchange, *self._user(ASKED, 0)]).partition(REPLIED)[2]
        turn = later.lstrip().removeprefix(self.end).lstrip()
        if not alone.endswith(turn):
            return ""  # the system's text stands within the user's turn, and there is none of its own
        return alone.removesuffix(turn).removeprefix(self.tokenizer.bos_token or "")

    @cached_property
    def _shown(self) -> str:
        """What stands for a picture in a user's turn, before it is expanded."""
        without = self._render(self._user(ASKED, 0)).partition(ASKED)[0]
        shown = self._render(self._user(ASKED, 1)).partition(ASKED)[0]
        before = without if shown.startswith(without) else without.rstrip()  # a space may stand before words alone
        return shown.removeprefix(before) if shown.startswith(before) else self.mark or self.place or ""

    def _user(self, text: str, pictures: int) -> Messages:
        return [{"role": "user", "content": self._parts([*[None] * pictures, text], {}, "", hide=False)}]

    def _parts(self, parts: Sequence[str | None], hidden: dict[str, str], beside: str, *, hide: bool = True) -> Any:
        """A turn's content, as the template takes it."""
        said = [self._hide(part, hidden, beside) if hide and part is not None else part for part in parts]
        if not self.parts:
            return "".join(part for part in said if part is not None)
        return [{"type": "image"} if part is None else {"type": "text", "text": part} for part in said]

    def _content(self, text: str) -> Any:
        return [{"type": "text", "text": text}] if self.parts else text

    def _render(self, messages: Messages) -> str:
        return self.tokenizer.apply_chat_template(
            messages, chat_template=self.text, tokenize=False, add_generation_prompt=True
        )

    def _with_pictures(self, rendered: str, image_tokens: Sequence[int]) -> str:
        """Put so many places where the template marks each picture."""
        if self.place is None:
            return rendered
        pieces = rendered.split(self.mark or self.place)
        if len(pieces) != len(image_tokens) + 1:
            raise TemplateError(
                f"the chat template marks {len(pieces) - 1} of {len(image_tokens)} pictures by "
                f"{self.mark or self.place}; is it the template of another model?"
            )
        shown = [self.picture(n) if self.picture is not None else self.place * n for n in image_tokens]
        return pieces[0] + "".join(a + b for a, b in zip(shown, pieces[1:], strict=True))

    @cached_property
    def _controls(self) -> re.Pattern[str]:
        """Any control token; of places, a run."""
        added = self.tokenizer.added_tokens_decoder.values()
        names = {token.content for token in added if token.special} | set(self.tokenizer.all_special_tokens)
        longest = sorted(names - {self.place}, key=len, reverse=True)
        run = [f"(?:{re.escape(self.place)})+"] if self.place is not None else []
        return re.compile("|".join([*run, *map(re.escape, longest)]) or r"(?!)")

    def _hide(self, text: str, hidden: dict[str, str], beside: str = "") -> str:
        """A text with a character of its own for each control token; the characters are noted in `hidden`."""
        taken = {*text, *beside, *hidden}
        free: Iterator[str] = (chr(code) for code in PRIVATE if chr(code) not in taken)

        def stand_in(found: re.Match[str]) -> str:
            by = {name: char for char, name in hidden.items()}
            if found[0] not in by:
                hidden[by.setdefault(found[0], next(free))] = found[0]
            return by[found[0]]

        return self._controls.sub(stand_in, text)

    def _ids(self, rendered: str, hidden: dict[str, str]) -> list[int]:
        """Tokens of a text whose control tokens are meant as such, but for the hidden ones."""
        ids: list[int] = []
        shown = str.maketrans(hidden)
        start = 0
        for found in (*self._controls.finditer(rendered), None):
            text = rendered[start : found.start() if found else None].translate(shown)
            if text:
                ids += self.tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"]
            if found:
                run = self.place is not None and found[0].startswith(self.place)
                name, times = (self.place, len(found[0]) // len(self.place)) if run else (found[0], 1)
                ids += [self.tokenizer.convert_tokens_to_ids(name)] * times
                start = found.end()
        return ids
