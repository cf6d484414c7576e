"""A conversation to be continued: what is said, what is shown, how the answer is drawn; and all that as JSON."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from PIL import Image

from datamodules.batch import ImageSource, image_key, load_image

Turn = tuple[Literal["system", "user", "assistant"], str]


@dataclass(frozen=True)
class Chat:
    """A conversation that the model is to continue.

    Attributes:
        about: what it is about, for messages and for readers of a reply's file; decides nothing.
        turns: (role, text) in order.
        images: shown with the first user turn.
        max_new_tokens: limit of the answer.
        temperature: of sampling; 0 takes the most likely token as far as the server can.
        top_p: nucleus.
        seed: for servers that heed one; tells draws of the same conversation apart.
        pictures_last: the pictures stand behind the first user turn's text instead of before it.
        schema: JSON schema that the answer is to fit; None leaves its form open.
    """

    about: str
    turns: tuple[Turn, ...]
    images: tuple[ImageSource, ...]
    max_new_tokens: int
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int = 0
    pictures_last: bool = False
    schema: Mapping[str, Any] | None = None

    @property
    def content(self) -> list[Any]:
        """All that the reply depends on, as JSON; pictures by their pixels.

        Raises:
            BadExampleError: a picture cannot be read.
        """
        pictures = [image_key(load_image(source)) for source in self.images]
        drawn = [self.max_new_tokens, self.temperature, self.top_p, self.seed]
        return [[list(turn) for turn in self.turns], pictures, self.pictures_last, drawn, self.schema]

    @property
    def text_bytes(self) -> int:
        """Length of all that is said; a token holds at least one byte."""
        return sum(len(text.encode()) for _, text in self.turns)

    def messages(self, max_side: int) -> list[dict[str, Any]]:
        """The turns as an OpenAI-compatible server takes them.

        Args:
            max_side: larger pictures are scaled down to it, in pixels.

        Raises:
            BadExampleError: a picture cannot be read.
        """
        urls = [data_url(source, max_side) for source in self.images]
        shown = [{"type": "image_url", "image_url": {"url": url}} for url in urls]
        found = []
        for role, text in self.turns:
            content: str | list[dict[str, Any]] = text
            if role == "user" and shown:
                said = [{"type": "text", "text": text}]
                content, shown = [*said, *shown] if self.pictures_last else [*shown, *said], []
            found.append({"role": role, "content": content})
        return found


def in_words(messages: Sequence[Mapping[str, Any]], schema_text: str) -> list[dict[str, Any]]:
    """Messages that ask for a schema in their last turn, for servers that cannot be told of it otherwise."""
    *before, last = messages
    ask = f"\nReply with one JSON object that fits this schema, and nothing else: {schema_text}"
    content = last["content"]
    if isinstance(content, str):
        return [*map(dict, before), {**last, "content": content + ask}]
    return [*map(dict, before), {**last, "content": [*content, {"type": "text", "text": ask}]}]


def data_url(source: ImageSource, max_side: int) -> str:
    """A picture as PNG in a URL, scaled down to `max_side` pixels.

    Raises:
        BadExampleError: it cannot be read.
    """
    image = load_image(source)
    image.thumbnail((max_side, max_side), Image.Resampling.BICUBIC)
    return "data:image/png;base64," + base64.b64encode(png(image)).decode()


def png(image: Image.Image) -> bytes:
    """The pixels as PNG, without metadata."""
    stream = io.BytesIO()
    Image.frombytes("RGB", image.size, image.tobytes()).save(stream, "PNG")
    return stream.getvalue()
