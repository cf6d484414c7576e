"""Bytes of a data file as text: byte order marks, the stated encoding, and which bytes belong to neither."""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterator
from typing import BinaryIO, Literal

Encoding = Literal["utf-8", "cp1252"]
MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),  # before UTF-16, whose mark it begins with
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
HALVES = re.compile("[\ud800-\udfff]")
ZERO = "\udc00"
"""Stands for a zero byte."""


class EncodingError(ValueError):
    """A file is plainly in another encoding than the one that it is to be read in."""


def decoded(content: bytes, encoding: Encoding = "utf-8") -> tuple[str, bool]:
    """The text, and whether some of its bytes belong to no character.

    A byte order mark says the encoding, whatever the setting. A byte that belongs to no character becomes half a
    surrogate pair, which `foreign` finds again: it spoils its row and no other. So does a zero byte.

    Raises:
        EncodingError: the file is UTF-16 without a mark, or is to be read as cp1252 and is UTF-8.
    """
    text, damaged = _by_mark(content, encoding)
    return text.replace("\0", ZERO), damaged or "\0" in text


def streams(head: bytes, encoding: Encoding) -> bool:
    """Whether a file can be decoded line by line, by its first bytes: UTF-8, with a mark or without.

    Args:
        head: at least 200 bytes, unless the file is shorter.
        encoding: of a file without a mark.
    """
    marked = next((named for mark, named in MARKS if head.startswith(mark)), encoding)
    return marked == "utf-8" and not 4 * head.count(0, 0, 200) > len(head[:200])


def decoded_lines(file: BinaryIO) -> Iterator[tuple[str, bool]]:
    """Each line of a file that `streams`, without its end, and whether some of its bytes belong to no character.

    The same as `decoded` of the whole and then cut at LF, CR LF and CR, with one line in memory at a time.
    """
    for number, raw in enumerate(file):
        content = raw.removesuffix(b"\n").removesuffix(b"\r") if raw.endswith(b"\n") else raw
        if number == 0:
            content = content.removeprefix(codecs.BOM_UTF8)
        for line in content.split(b"\r"):
            text, damaged = _decoded(line, "utf-8")
            yield text.replace("\0", ZERO), damaged or "\0" in text


def _by_mark(content: bytes, encoding: Encoding) -> tuple[str, bool]:
    """As `decoded`, with zero bytes as they are."""
    for mark, named in MARKS:
        if content.startswith(mark):
            return _decoded(content[len(mark) :], named)
    if 4 * content.count(0, 0, 200) > len(content[:200]):  # every second byte of Latin text
        raise EncodingError("holds zero bytes: is it UTF-16 without a byte order mark? Save it as UTF-8")
    if encoding == "cp1252" and not content.isascii() and not _decoded(content, "utf-8")[1]:
        raise EncodingError("is UTF-8, and encoding: cp1252 would read its accents as two letters each; leave it out")
    return _decoded(content, encoding)


def _decoded(content: bytes, encoding: str) -> tuple[str, bool]:
    """As `decoded`, in an encoding that is known."""
    try:
        return content.decode(encoding), False
    except UnicodeDecodeError:
        pass
    if encoding in ("utf-8", "cp1252"):
        return content.decode(encoding, "surrogateescape"), True
    unit = 4 if encoding.startswith("utf-32") else 2
    whole = content[: len(content) // unit * unit]
    tail = "" if len(whole) == len(content) else "\udcff"  # half a character
    try:
        return whole.decode(encoding, "surrogatepass") + tail, True
    except UnicodeDecodeError:
        return whole.decode(encoding, "replace").replace("\ufffd", "\udcff") + tail, True


def foreign(text: str, encoding: Encoding = "utf-8") -> str:
    """What is wrong with the first byte that belongs to no character, and what to do; empty where there is none."""
    found = HALVES.search(text)
    if found is None:
        return ""
    code = ord(found.group())
    byte = f"byte 0x{code - 0xDC00:02x}" if code == ord(ZERO) or 0xDC80 <= code <= 0xDCFF else "half a character"
    remedy = "was the file damaged, or written in another encoding?"
    if encoding == "utf-8":
        remedy = "save the file as UTF-8 ('CSV UTF-8' in a spreadsheet), or set encoding: cp1252 if it is that"
    around = text[max(0, found.start() - 20) : found.start() + 20]
    return f"{byte} is no character in {encoding}, near {around!r}; {remedy}"
