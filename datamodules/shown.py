"""A picture as an image viewer shows it: which page, which way up, on which background, how bright.

Model and reader must see the same. What a viewer would do is decided here, for files, bytes and pictures in memory
alike; what cannot be decided without a choice of grey levels or of a page is refused, never guessed.
"""

from __future__ import annotations

import struct
from typing import Literal

import numpy as np
from PIL import Image

READING = "2"
"""Version of what is done here; change it with any pixel that comes out otherwise. Hashes of data hold it."""
FORMATS = ("PNG", "JPEG", "TIFF", "GIF", "BMP", "WEBP", "JPEG2000", "AVIF", "PPM")
"""Kinds of files that are opened. Others are no pictures of patients, and reading EPS would start a program."""
DIMMEST = 2**14
"""A picture of 16 bits per grey level must reach this value: below it, a viewer shows at most a quarter of the
brightness, as of CT or X-ray values of 10 to 14 bits that nobody scaled."""

Frames = Literal["refuse", "first", "middle"]
"""What is done with a file of several pages or frames."""

ORIENTATION = 0x0112
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""Value of the EXIF tag -> what brings the stored picture upright."""

PAGE_KIND, PHOTOMETRIC, BITS = 254, 262, 258
NO_PAGE = 1 | 4
"""Bits of TIFF's tag 254: a smaller copy of another page, or a mask."""


class NotShownError(ValueError):
    """The picture cannot be shown without a choice that is somebody else's."""


def as_shown(image: Image.Image) -> Image.Image:
    """The picture in RGB, as a viewer shows it: turned as its camera noted, what is transparent on white.

    Grey levels of 16 bits go from black at 0 to white at 65535.

    Args:
        image: as opened and wound to its page, or made in memory.

    Raises:
        NotShownError: it has grey levels that need a window.
        OSError: the file is damaged; Pillow also raises SyntaxError, EOFError, ValueError and others.

    Choice: colour profiles are not applied, as no processor of the families here does.
    """
    deep, grey_bits = is_deep_colour(image), stored_grey_bits(image)  # reading forgets how the file was coded
    image.load()
    rgb = on_white(image, deep, grey_bits)
    turn = TURNS.get(orientation(image))  # asked after reading, which turns a TIFF by itself
    shown = rgb if turn is None else rgb.transpose(turn)
    shown.info = {}  # what it noted is done; who reads it again must not turn it twice
    return shown


def shown_size(image: Image.Image) -> tuple[int, int]:
    """(width, height) of what `as_shown` returns, without decoding."""
    width, height = image.size
    aside = image.format != "TIFF" and orientation(image) >= 5  # of a TIFF Pillow tells the size upright
    return (height, width) if aside else (width, height)


# -- pages -------------------------------------------------------------------------------------------------------


def choose_page(image: Image.Image, frames: Frames) -> None:
    """Wind a file to the page that is shown.

    The second picture inside a phone's JPEG, and TIFF's thumbnails and masks, are no pages.

    Args:
        image: as opened; pictures in memory are one page.
        frames: what is done with several; `middle` takes the (n // 2)-th of n, counted from 0.

    Raises:
        NotShownError: there are several, and `frames` is `refuse`.
    """
    held = pages(image)
    if len(held) < 2:
        if held and held[0] != 0:
            image.seek(held[0])
        return
    if frames == "refuse":
        raise NotShownError(
            f"holds {len(held)} frames or pages, and a question shows one; frames=first or frames=middle takes one of "
            "them, or save the one that is meant"
        )
    image.seek(held[0] if frames == "first" else held[len(held) // 2])


def pages(image: Image.Image) -> list[int]:
    """Numbers of the frames that a viewer would count as pictures."""
    count = 1 if image.format in (None, "MPO", "JPEG") else getattr(image, "n_frames", 1)
    if count == 1 or image.format != "TIFF":
        return list(range(count))
    kinds = []
    for number in range(count):
        image.seek(number)
        kinds.append(int(image.tag_v2.get(PAGE_KIND, 0)))
    image.seek(0)
    return [number for number, kind in enumerate(kinds) if not kind & NO_PAGE] or [0]


def orientation(image: Image.Image) -> int:
    """The EXIF orientation, 1 to 8; 1 where none is given, or what stands there cannot be read."""
    try:
        value = image.getexif().get(ORIENTATION, 1)
    except (SyntaxError, ValueError, TypeError, LookupError, OSError, EOFError, struct.error):
        return 1  # viewers show a picture whose notes are damaged as it is stored
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


# -- colours -----------------------------------------------------------------------------------------------------


def on_white(image: Image.Image, deep: bool, grey_bits: int) -> Image.Image:
    """A loaded picture in RGB, on white where it is transparent.

    Args:
        image: loaded.
        deep: as `is_deep_colour` said before.
        grey_bits: as `stored_grey_bits` said before.
    """
    if image.mode.startswith(("I", "F")):
        return grey_of_16_bits(image)
    key = image.info.get("transparency")
    if key is not None and image.mode in ("1", "L", "RGB"):  # one colour counts as transparent
        if deep:
            raise NotShownError(
                "has 16 bits per channel and one transparent colour, and which pixels have it is lost on reading; save "
                "it with 8 bits per channel"
            )
        alpha = colour_is_not(image, key, grey_bits)
    elif image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or (key is not None and image.mode == "P"):
        image = image.convert({"La": "LA", "RGBa": "RGBA"}.get(image.mode, "RGBA"))
        alpha = image.getchannel("A")
    else:
        return image.convert("RGB")
    page = Image.new("RGB", image.size, "white")
    page.paste(without_alpha(image), mask=alpha)  # (c * a + 255 * (255 - a)) / 255, rounded to the nearest
    return page


def without_alpha(image: Image.Image) -> Image.Image:
    """The colours of a picture, whatever its transparency says."""
    colours = image.copy()
    colours.info.pop("transparency", None)
    return colours.convert("RGB")


def colour_is_not(image: Image.Image, key: object, grey_bits: int) -> Image.Image:
    """255 where a picture of 8 bits per channel has another colour than the transparent one, else 0.

    Args:
        image: of mode 1, L or RGB.
        key: as the file has it: a grey level of its own depth, or three channels.
        grey_bits: of the file's grey levels, which reading has spread over 0 to 255.
    """
    pixels = np.asarray(image.convert("RGB" if image.mode == "RGB" else "L"))
    if image.mode == "L" and isinstance(key, int):
        key = key * 255 // (2**grey_bits - 1)
    same = pixels == np.asarray(key)
    return Image.fromarray(np.where(same.all(-1) if pixels.ndim == 3 else same, 0, 255).astype(np.uint8))


def is_deep_colour(image: Image.Image) -> bool:
    """Whether a file has 16 bits per channel of colour, of which reading keeps the upper 8."""
    return any(";16" in str(tile.args) for tile in getattr(image, "tile", ())) and image.mode == "RGB"


def stored_grey_bits(image: Image.Image) -> int:
    """Bits of a grey level in a file of mode L: 2, 4 or 8."""
    coded = {str(tile.args) for tile in getattr(image, "tile", ())}
    return next((bits for bits in (2, 4) if f"L;{bits}" in coded), 8)


def grey_of_16_bits(image: Image.Image) -> Image.Image:
    """Grey levels of 16 bits, brought to 8: 0 is black and 65535 white, as PNG and TIFF define them.

    Raises:
        NotShownError: more than 16 bits, signed, or of which even the brightest is dark.
    """
    tags = getattr(image, "tag_v2", {})
    bits = tags.get(BITS, (16,))
    deep = bits[0] if isinstance(bits, tuple) else bits
    if not (image.mode.startswith("I;16") or (image.mode == "I" and image.format in ("PNG", "PPM"))) or deep != 16:
        raise NotShownError(
            f"has mode {image.mode!r}, more than 8 bits per channel, and no rule says which value is black and which "
            "white; choose a grey-level window first (datamodules/windows.py), and save it with 8 bits"
        )
    levels = np.asarray(image).astype(np.uint32)
    key = image.info.get("transparency")
    transparent = levels == key if isinstance(key, int) else None
    if tags.get(PHOTOMETRIC) == 0:
        levels = 65535 - levels
    if int(levels.max()) < DIMMEST:
        raise NotShownError(
            f"has mode {image.mode!r}, and of its 16 bits per channel the brightest value is {int(levels.max())} of "
            "65535: a viewer would show it almost black; choose a grey-level window first (datamodules/windows.py), "
            "and save it with 8 bits"
        )
    shown = ((levels * 255 + 32767) // 65535).astype(np.uint8)
    if transparent is not None:
        shown[transparent] = 255
    return Image.fromarray(shown).convert("RGB")
