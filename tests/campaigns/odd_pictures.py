"""Odd pictures by seed: bytes of a file, and the pixels that a viewer shows, computed without the code under test.

PNG files are written here byte by byte, so that every depth, transparency and orientation is what we say it is. Other
formats are written by Pillow from values that are known.
"""

import io
import random
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from PIL import Image

ORIENTATIONS: dict[int, Callable[[np.ndarray], np.ndarray]] = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: a[::-1].swapaxes(0, 1),  # a quarter turn clockwise: the first row becomes the last column
    7: lambda a: a[::-1, ::-1].swapaxes(0, 1),
    8: lambda a: a[:, ::-1].swapaxes(0, 1),
}
"""EXIF's table of what the camera's stored rows and columns are in the scene, as index arithmetic."""


@dataclass(frozen=True)
class OddPicture:
    """One of them.

    Attributes:
        name: what it is, with the ending of its file.
        content: the file.
        pixels: (H, W, 3) uint8 that are shown; None where it has to be refused.
        frames: the setting under which this holds.
        tolerance: grey levels by which a reading may differ: 1 where 16 bits became 8 on reading.
    """

    name: str
    content: bytes
    pixels: np.ndarray | None
    frames: str = "refuse"
    tolerance: int = 0


def odd_picture(seed: int) -> OddPicture:
    """The picture of a seed; kinds take turns, so that as many seeds as there are kinds show each once."""
    rng, kinds = np.random.default_rng(seed), list(KINDS)
    height, width = int(rng.integers(1, 24)), int(rng.integers(1, 24))
    return KINDS[kinds[seed % len(kinds)]](rng, height, width)


def on_white(colour: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    """(H, W, 3) and (H, W), both 0 to 255: what shows on white paper."""
    share = alpha[..., None] / 255
    return np.rint(colour * share + 255 * (1 - share)).astype(np.uint8)


def grey(levels: np.ndarray) -> np.ndarray:
    """(H, W) as three equal channels."""
    return np.repeat(levels[..., None], 3, -1)


# -- PNG ---------------------------------------------------------------------------------------------------------


def chunk(kind: bytes, body: bytes) -> bytes:
    """A chunk of a PNG."""
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png(samples: np.ndarray, bits: int, colour_type: int, *extra: bytes) -> bytes:
    """A PNG of (H, W, C) samples of so many bits; `extra` are chunks before the pixels."""
    height, width = samples.shape[:2]
    flat = samples.reshape(height, -1)
    if bits < 8:
        wide = (flat[..., None] >> np.arange(bits - 1, -1, -1)) & 1
        rows = np.packbits(wide.reshape(height, -1).astype(np.uint8), axis=1)
    else:
        rows = flat.astype(">u2" if bits == 16 else np.uint8)
    body = b"".join(b"\0" + row.tobytes() for row in rows)
    head = struct.pack(">IIBBBBB", width, height, bits, colour_type, 0, 0, 0)
    chunks = [chunk(b"IHDR", head), *extra, chunk(b"IDAT", zlib.compress(body)), chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def exif(orientation: int, order: str) -> bytes:
    """An EXIF block that says one thing; `order` is `<` or `>`."""
    mark = b"II*\0" if order == "<" else b"MM\0*"
    return mark + struct.pack(f"{order}IHHHIHHI", 8, 1, 0x0112, 3, 1, orientation, 0, 0)


def turned(rng: np.random.Generator) -> tuple[int, bytes]:
    """A drawn orientation and its EXIF block."""
    orientation = int(rng.integers(1, 9))
    return orientation, exif(orientation, "<" if rng.random() < 0.5 else ">")


def png_grey(rng: np.random.Generator, height: int, width: int) -> OddPicture:
    """Any depth, sometimes with one transparent level."""
    bits = int(rng.choice([1, 2, 4, 8, 16]))
    levels = rng.integers(0, 2**bits, (height, width))
    levels[0, 0] = 2**bits - 1  # some of it is bright, as a picture that was meant to be looked at
    shown = np.rint(levels * 255 / (2**bits - 1)).astype(np.uint8)
    orientation, note = turned(rng)
    extra, alpha = [chunk(b"eXIf", note)], np.full(levels.shape, 255)
    if rng.random() < 0.6:
        clear = int(rng.choice(levels.ravel()))
        extra.append(chunk(b"tRNS", struct.pack(">H", clear)))
        alpha = np.where(levels == clear, 0, 255)
    pixels = ORIENTATIONS[orientation](on_white(grey(shown), alpha))
    return OddPicture(f"grey{bits}.png", png(levels[..., None], bits, 0, *extra), pixels)


def png_dark(rng: np.random.Generator, height: int, width: int) -> OddPicture:
    """Values of 8 to 14 bits in a file of 16, which nobody scaled."""
    levels = rng.integers(0, 2 ** int(rng.integers(8, 15)), (height, width))
    return OddPicture("dark.png", png(levels[..., None], 16, 0), None)


def png_colour(rng: np.random.Generator, height: int, width: int) -> OddPicture:
    """8 or 16 bits, sometimes with one transparent colour: at 16 bits it is lost on reading."""
    bits = int(rng.choice([8, 16]))
    colour = rng.integers(0, 2**bits, (height, width, 3))
    orientation, note = turned(rng)
    extra, alpha = [chunk(b"eXIf", note)], np.full((height, width), 255)
    keyed = rng.random() < 0.5
    if keyed:
        clear = colour[rng.integers(height), rng.integers(width)]
        extra.append(chunk(b"tRNS", struct.pack(">HHH", *map(int, clear))))
        alpha = np.where((colour == clear).all(-1), 0, 255)
    pixels = ORIENTATIONS[orientation](on_white(np.rint(colour * 255 / (2**bits - 1)), alpha))
    refused = keyed and bits == 16
    return OddPicture(f"rgb{bits}.png", png(colour, bits, 2, *extra), None if refused else pixels, tolerance=bits // 16)


def png_alpha(rng: np.random.Generator, height: int, width: int) -> OddPicture:
    """Grey or colour with alpha, 8 or 16 bits."""
    bits, channels = int(rng.choice([8, 16])), int(rng.choice([1, 3]))
    values = rng.integers(0, 2**bits, (height, width, channels + 1))
    values[..., -1] *= rng.random((height, width)) < 0.7  # a good part wholly clear
    orientation, note = turned(rng)
    scaled = values * 255 / (2**bits - 1)
    colour = scaled[..., :3] if channels == 3 else grey(scaled[..., 0])
    pixels = ORIENTATIONS[orientation](on_white(colour, scaled[..., -1]))
    content = png(values, bits, 6 if channels == 3 else 4, chunk(b"eXIf", note))
    return OddPicture(f"alpha{bits}.png", content, pixels, tolerance=2 * (bits // 16))


def png_palette(rng: np.random.Generator, height: int, width: int) -> OddPicture:
    """Any depth, entries more or less transparent."""
    bits = int(rng.choice([1, 2, 4, 8]))
    palette = rng.integers(0, 256, (2**bits, 3))
    places = rng.integers(0, 2**bits, (height, width))
    alphas = np.full(2**bits, 255)
    some = int(rng.integers(0, 2**bits + 1))
    alphas[:some] = rng.choice([0, 255], some) if rng.random() < 0.5 else rng.integers(0, 256, some)
    orientation, note = turned(rng)
    extra = [chunk(b"eXIf", note), chunk(b"PLTE", palette.astype(np.uint8).tobytes())]
    extra += [chunk(b"tRNS", alphas[:some].astype(np.uint8).tobytes())] if some else []
    pixels = ORIENTATIONS[orientation](on_white(palette[places], alphas[places]))
    return OddPicture(f"palette{bits}.png", png(places[..., None], bits, 3, *extra), pixels)


# -- other formats -----------------------------------------------------------------------------------------------


def saved(image: Image.Image, kind: str, **options: object) -> bytes:
    """A file of Pillow's."""
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def inks(rng: np.random.Generator, height: int, width: int) -> tuple[Image.Image, np.ndarray]:
    """A picture in CMYK, and in red, green and blue: each ink and black let through what they do not hold back."""
    held = rng.integers(0, 256, (height, width, 4)).astype(np.uint8)
    through = 255.0 - held
    return Image.fromarray(held, "CMYK"), np.rint(through[..., :3] * through[..., 3:] / 255).astype(np.uint8)


def jpeg(rng: np.random.Generator, height: int, width: int) -> OddPicture:
    """A camera's picture, with its note which way is up; the loss is that of the same file without the note."""
    mode = str(rng.choice(["L", "RGB"]))
    channels = {"L": (), "RGB": (3,)}[mode]
    image = Image.fromarray(rng.integers(0, 256, (height, width, *channels)).astype(np.uint8))
    orientation, note = turned(rng)
    plain = np.asarray(Image.open(io.BytesIO(saved(image, "JPEG"))))
    stored = grey(plain) if mode == "L" else plain
    content = saved(image, "JPEG", exif=b"Exif\0\0" + note)
    return OddPicture(f"{mode}.jpg", content, ORIENTATIONS[orientation](stored))


def tiff(rng: np.random.Generator, height: int, width: int) -> OddPicture:
    """One page of any mode, turned, with a thumbnail behind it or none."""
    mode, size = str(rng.choice(["1", "L", "RGB", "RGBA", "CMYK", "I;16"])), (height, width)
    values = rng.integers(0, 256, (*size, 4)).astype(np.uint8)
    if mode == "CMYK":
        image, shown = inks(rng, height, width)
    elif mode == "RGBA":
        image, shown = Image.fromarray(values), on_white(values[..., :3], values[..., 3])
    elif mode == "I;16":
        deep = rng.integers(0, 2**16, size).astype(np.uint16)
        deep[0, 0] = 2**16 - 1
        image, shown = Image.fromarray(deep), grey(np.rint(deep / 257).astype(np.uint8))
    elif mode == "RGB":
        image, shown = Image.fromarray(values[..., :3].copy()), values[..., :3]
    else:
        levels = np.where(values[..., 0] > 127, 255, 0).astype(np.uint8) if mode == "1" else values[..., 0]
        image, shown = Image.fromarray(levels).convert(mode), grey(levels)
    orientation = int(rng.integers(1, 9))
    options: dict[str, object] = {"tiffinfo": {274: orientation}}
    if rng.random() < 0.5:
        thumbnail = image.resize((max(1, width // 2), max(1, height // 2)))
        thumbnail.encoderinfo = {"tiffinfo": {254: 1}}
        options |= {"save_all": True, "append_images": [thumbnail]}
    return OddPicture(f"{mode.replace(';', '')}.tif", saved(image, "TIFF", **options), ORIENTATIONS[orientation](shown))


def several(rng: np.random.Generator, height: int, width: int) -> OddPicture:
    """Pages or frames, some of them chosen by the setting."""
    kind = str(rng.choice(["TIFF", "GIF", "PNG", "WEBP"]))
    count = int(rng.integers(2, 6))
    held = [np.full((height, width, 3), 40 * number + int(rng.integers(0, 30)), np.uint8) for number in range(count)]
    first, *rest = map(Image.fromarray, held)
    options = {"lossless": True} if kind == "WEBP" else {}
    content = saved(first, kind, save_all=True, append_images=rest, **options)
    frames = str(rng.choice(["refuse", "first", "middle"]))
    pixels = {"refuse": None, "first": held[0], "middle": held[count // 2]}[frames]
    return OddPicture(f"{count}frames.{kind.lower()}", content, pixels, frames)


def webp(rng: np.random.Generator, height: int, width: int) -> OddPicture:
    """Without loss, with alpha and a note which way is up."""
    values = rng.integers(0, 256, (height, width, 4)).astype(np.uint8)
    orientation, note = turned(rng)
    content = saved(Image.fromarray(values), "WEBP", lossless=True, exact=True, exif=b"Exif\0\0" + note)
    pixels = ORIENTATIONS[orientation](on_white(values[..., :3], values[..., 3]))
    return OddPicture("alpha.webp", content, pixels)


def gif(rng: np.random.Generator, height: int, width: int) -> OddPicture:
    """One frame with a transparent entry, or none."""
    colours = rng.permutation(256)[: int(rng.integers(2, 9))].astype(np.uint8)
    places = rng.integers(0, len(colours), (height, width)).astype(np.uint8)
    image = Image.fromarray(places, "P")
    image.putpalette(np.repeat(colours, 3).tobytes())
    clear = int(rng.integers(0, len(colours))) if rng.random() < 0.6 else None
    alpha = np.full(places.shape, 255) if clear is None else np.where(places == clear, 0, 255)
    content = saved(image, "GIF", **({} if clear is None else {"transparency": clear}))
    return OddPicture("clear.gif", content, on_white(grey(colours[places]), alpha))


KINDS: dict[str, Callable[[np.random.Generator, int, int], OddPicture]] = {
    made.__name__: made
    for made in (png_grey, png_alpha, png_palette, png_colour, png_dark, jpeg, tiff, several, webp, gif)
}


def damaged(seed: int) -> bytes:
    """A file that was cut or in which bytes changed."""
    rng = random.Random(seed)
    content = bytearray(odd_picture(seed).content)
    if rng.random() < 0.4:
        content = content[: rng.randrange(1, len(content))]
    for _ in range(rng.randrange(1, 8)):
        content[rng.randrange(min(len(content), 200))] = rng.randrange(256)
    return bytes(content)
