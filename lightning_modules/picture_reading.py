"""Pictures as the model takes them: read once, and held while there is room."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass

from PIL import Image

from datamodules.batch import ImageSource, PictureError, called, file_of, image_key, load_image
from lightning_modules.families.base import ImageInput, PictureInput
from lightning_modules.feature_cache import Recent

KNOWN_SOURCES = 2**16
"""Sources whose picture's key is remembered, so that a held picture is found without being decoded."""


@dataclass(frozen=True)
class PictureReader:
    """Decodes and preprocesses one picture. It holds nothing of the model, so that it can be sent to loader workers."""

    to_input: PictureInput
    """The family's."""

    def __call__(self, source: ImageSource) -> tuple[str, ImageInput]:
        """The picture's `image_key` and its input.

        Raises:
            PictureError: it cannot be read, or the model takes none like it.
        """
        image = load_image(source)
        return image_key(image), input_of(image, source, self.to_input)


class HeldPictures:
    """Reads pictures, and holds those that were used last."""

    def __init__(self, to_input: PictureInput, max_bytes: int) -> None:
        """Hold nothing yet.

        Args:
            to_input: the family's.
            max_bytes: bound of what is held, in bytes of pixels.
        """
        self.to_input = to_input
        self.held: Recent[ImageInput] = Recent(max_bytes)
        self._keys: dict[Hashable, str] = {}

    def read(self, source: ImageSource) -> tuple[str, ImageInput]:
        """The picture's `image_key` and its input.

        Raises:
            PictureError: it cannot be read, or the model takes none like it.
        """
        name = lasting_name(source)
        key = self._keys.get(name) if name is not None else None
        item = self.held.get(key) if key is not None else None
        if key is not None and item is not None:
            return key, item
        image = load_image(source)
        key = image_key(image)
        if name is not None:
            if len(self._keys) >= KNOWN_SOURCES:
                self._keys.clear()
            self._keys[name] = key
        item = self.held.get(key)
        if item is None:
            item = input_of(image, source, self.to_input)
            self.held.put(key, item, item.pixels.nbytes)
        return key, item


def input_of(image: Image.Image, source: ImageSource, to_input: PictureInput) -> ImageInput:
    """What the model takes in a picture's place.

    Raises:
        PictureError: names the file, or what else it is from.
    """
    try:
        return to_input(image)
    except PictureError as error:
        raise PictureError(error.trouble, f"{called(source)}: {error}") from error


def lasting_name(source: ImageSource) -> Hashable | None:
    """What stands for a picture as long as it shows the same; None where nothing does, and it must be looked at.

    A file is named with its inode, size and time, so that one that was replaced is read again. A function that draws
    its picture draws the same one every time (a rule that the contract tests hold). A picture in memory may be drawn
    upon, and has no name.
    """
    file = file_of(source)
    if file is not None:
        try:
            found = file.stat()
        except OSError:
            return None  # reading it tells what is wrong
        return source, found.st_ino, found.st_size, found.st_mtime_ns
    if isinstance(source, Image.Image):
        return None
    try:
        hash(source)
    except TypeError:
        return None
    return source
