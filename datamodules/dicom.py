"""Read the few DICOM elements that a CT slice and its contours need; implicit little-endian files alone."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np

Element = "bytes | list[DataSet]"
DataSet = dict[int, Element]
"""Tag (group << 16 | element) -> value, or the items of a sequence."""

IMPLICIT_LITTLE_ENDIAN = b"1.2.840.10008.1.2\0"
TRANSFER_SYNTAX, POSITION, PIXELS = 0x00020010, 0x00200032, 0x7FE00010
ROWS, COLUMNS, SIGNED, SLOPE, INTERCEPT = 0x00280010, 0x00280011, 0x00280103, 0x00281053, 0x00281052
ROI_SEQUENCE, ROI_NUMBER, ROI_NAME = 0x30060020, 0x30060022, 0x30060026
ROI_CONTOURS, CONTOURS, CONTOUR_DATA, ROI_REFERENCE = 0x30060039, 0x30060040, 0x30060050, 0x30060084
SEQUENCES = {ROI_SEQUENCE, ROI_CONTOURS, CONTOURS}
"""Sequences that are entered; an implicit file does not say of an element of known length whether it is one."""
ITEM, ITEM_END, SEQUENCE_END = 0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD
OPEN = 0xFFFFFFFF


class DicomError(ValueError):
    """The file is not DICOM, is cut short, or is coded in a way that is not read here."""


def read_dicom(path: Path) -> DataSet:
    """Read a file into its top-level elements.

    Raises:
        DicomError: not DICOM, another transfer syntax than implicit little-endian, or cut short.
    """
    content = path.read_bytes()
    if content[128:132] != b"DICM":
        raise DicomError(f"{path}: not a DICOM file")
    try:
        start, syntax = 132, b""
        while struct.unpack_from("<H", content, start)[0] == 2:  # the file header is explicit, whatever follows
            tag, length, at = explicit_header(content, start)
            syntax = content[at : at + length] if tag == TRANSFER_SYNTAX else syntax
            start = at + length
        if syntax != IMPLICIT_LITTLE_ENDIAN:
            raise DicomError(f"{path}: transfer syntax {syntax!r}, read here is {IMPLICIT_LITTLE_ENDIAN!r}")
        return read_elements(content, start, len(content))[0]
    except (struct.error, IndexError) as error:
        raise DicomError(f"{path}: cut short ({error})") from error


def explicit_header(content: bytes, at: int) -> tuple[int, int, int]:
    """(tag, length, start of the value) of an element that names its type."""
    group, element, kind = struct.unpack_from("<HH2s", content, at)
    long = kind in (b"OB", b"OW", b"OF", b"SQ", b"UN", b"UT")
    (length,) = struct.unpack_from("<I" if long else "<H", content, at + (8 if long else 6))
    return group << 16 | element, length, at + (12 if long else 8)


def read_elements(content: bytes, at: int, end: int) -> tuple[DataSet, int]:
    """Elements from one byte to another, or to the end of an item of open length; and where they ended."""
    found: DataSet = {}
    while at < end:
        group, element, length = struct.unpack_from("<HHI", content, at)
        tag, at = group << 16 | element, at + 8
        if tag == ITEM_END:
            break
        if tag in SEQUENCES or length == OPEN:
            found[tag], at = read_items(content, at, end if length == OPEN else at + length)
        else:
            found[tag], at = content[at : at + length], at + length
    return found, at


def read_items(content: bytes, at: int, end: int) -> tuple[list[DataSet], int]:
    """Items of a sequence, and where it ended."""
    items = []
    while at < end:
        group, element, length = struct.unpack_from("<HHI", content, at)
        at += 8
        if group << 16 | element == SEQUENCE_END:
            break
        item, at = read_elements(content, at, end if length == OPEN else at + length)
        items.append(item)
    return items, at


def numbers(value: bytes) -> list[float]:
    """Decimal strings, separated by backslashes."""
    return [float(part) for part in value.rstrip(b" \0").split(b"\\")]


def hounsfield(slice_: DataSet) -> np.ndarray:
    """(H, W) float32 of a CT slice, in Hounsfield units."""
    rows, columns, signed = (struct.unpack("<H", slice_[tag])[0] for tag in (ROWS, COLUMNS, SIGNED))
    stored = np.frombuffer(slice_[PIXELS], "<i2" if signed else "<u2", rows * columns).reshape(rows, columns)
    return stored.astype(np.float32) * numbers(slice_[SLOPE])[0] + numbers(slice_[INTERCEPT])[0]


def contour_heights(structures: DataSet, prefix: str) -> set[float]:
    """Heights at which the region whose name begins with a prefix is outlined.

    Args:
        structures: an RT structure set.
        prefix: of the region's name, such as "GTV".

    Returns:
        z in mm, rounded to 0.1.

    Raises:
        DicomError: no region is so called.
    """
    names = {numbers(roi[ROI_NUMBER])[0]: roi[ROI_NAME].decode().strip(" \0") for roi in structures[ROI_SEQUENCE]}
    wanted = {number for number, name in names.items() if name.startswith(prefix)}
    if not wanted:
        raise DicomError(f"no region begins with {prefix!r}; there are {sorted(names.values())}")
    return {
        round(numbers(contour[CONTOUR_DATA])[2], 1)
        for roi in structures[ROI_CONTOURS]
        if numbers(roi[ROI_REFERENCE])[0] in wanted
        for contour in roi.get(CONTOURS, [])
    }
