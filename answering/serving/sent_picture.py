"""A picture that came with a request: bytes in a data URL, and never an address or a path that is followed."""

from __future__ import annotations

import base64
import binascii
import io
import re
from dataclasses import dataclass, field

from PIL import Image

from answering.serving.errors import ApiError
from datamodules.batch import MAX_PIXELS, BadExampleError, Look, Seen, load_image, looked_at, picture_size

HEAD = re.compile(r"data:image/[\w.+-]{1,40};base64,", re.ASCII | re.IGNORECASE)
MOST_PICTURES = 16
"""Of one request."""


@dataclass  # not frozen: what can be hashed would be remembered with all of its bytes
class SentPicture:
    """A source of a picture, see `datamodules.batch.ImageSource`."""

    content: bytes = field(repr=False)
    name: str
    """For messages."""

    def __call__(self) -> Image.Image:
        """Decode it."""
        return load_image(self)

    def look_at(self, look: Look[Seen]) -> Seen:
        """As of `datamodules.batch.opened`."""
        return looked_at(io.BytesIO(self.content), self.name, look)


def sent_picture(url: object, place: str) -> SentPicture:
    """The picture in a data URL; nothing is decoded yet.

    Args:
        url: as it was sent.
        place: of the field, for messages.

    Raises:
        ApiError: it is no data URL of a picture.
    """
    head = HEAD.match(url) if isinstance(url, str) else None
    if head is None:
        told = f"{url[:60]!r}" if isinstance(url, str) else f"a {type(url).__name__}"
        raise ApiError(
            400,
            f"{place}: expected a picture as data:image/png;base64,…, got {told}; no address is fetched and no file "
            "is opened here, so send the picture itself",
            place,
            "invalid_image_url",
        )
    try:
        content = base64.b64decode(url[head.end() :], validate=True)
    except (binascii.Error, ValueError) as error:
        raise ApiError(400, f"{place}: is not base64 ({error})", place, "invalid_base64_image") from error
    return SentPicture(content, place)


def check_pictures(pictures: list[SentPicture]) -> None:
    """Refuse what is none, or too many pixels together, by what the pictures' headers say.

    Raises:
        ApiError: names the picture.
    """
    if len(pictures) > MOST_PICTURES:
        raise ApiError(
            400, f"{len(pictures)} pictures; a request may have {MOST_PICTURES}", "messages", "too_many_images"
        )
    pixels = 0
    for picture in pictures:
        try:
            width, height = picture_size(picture)
        except BadExampleError as error:
            raise ApiError(400, str(error), picture.name, "invalid_image") from error
        pixels += width * height
        if pixels > MAX_PIXELS:
            raise ApiError(
                400,
                f"{picture.name}: {width}x{height}, {pixels} pixels in all; a request may have {MAX_PIXELS}",
                picture.name,
                "image_too_large",
            )
