"""Reference: NIfTI and DICOM files written here byte by byte. Run: pytest this file."""

import gzip
import struct

import numpy as np
import pytest

from datamodules.dicom import DicomError, contour_heights, hounsfield, read_dicom
from datamodules.nifti import NiftiError, read_nifti


def nifti(shape=(2, 3, 4), kind=2, diagonal=(1, 1, 1)):
    header = bytearray(352)
    struct.pack_into("<i", header, 0, 348)
    struct.pack_into("<8h", header, 40, 3, *shape, 1, 1, 1, 1)
    struct.pack_into("<h", header, 70, kind)
    struct.pack_into("<3f", header, 108, 352, 1, 0)
    for axis, size in enumerate(diagonal):
        struct.pack_into("<f", header, 280 + 20 * axis, size)
    return bytes(header) + bytes(range(int(np.prod(shape))))


def test_nifti_by_hand(tmp_path):
    path = tmp_path / "x.nii.gz"
    path.write_bytes(gzip.compress(nifti()))
    volume = read_nifti(path)
    # The first axis runs fastest: (x, y, z) lies at x + 2 y + 6 z.
    assert volume[1, 2, 3] == 1 + 4 + 18
    for name, content in {
        "cut": nifti()[:-3],
        "float": nifti(kind=16),
        "left": nifti(diagonal=(-1, 1, 1)),
        "not": b"nothing",
    }.items():
        other = tmp_path / f"{name}.nii.gz"
        other.write_bytes(gzip.compress(content))
        with pytest.raises(NiftiError, match=name):
            read_nifti(other)


def element(tag, value):
    value += b" " * (len(value) % 2)
    return struct.pack("<HHI", tag >> 16, tag & 0xFFFF, len(value)) + value


def item(content, *, open_length):
    if open_length:
        return struct.pack("<HHI", 0xFFFE, 0xE000, 0xFFFFFFFF) + content + struct.pack("<HHI", 0xFFFE, 0xE00D, 0)
    return element(0xFFFEE000, content)


def dicom(body, syntax=b"1.2.840.10008.1.2\0"):
    meta = struct.pack("<HH2sH", 2, 0x10, b"UI", len(syntax)) + syntax
    return bytes(128) + b"DICM" + meta + body


@pytest.mark.parametrize("open_length", [False, True])
def test_contours_by_hand(tmp_path, open_length):
    def sequence(tag, *contents):
        items = b"".join(item(content, open_length=open_length) for content in contents)
        if not open_length:
            return element(tag, items)
        end = struct.pack("<HHI", 0xFFFE, 0xE0DD, 0)
        return struct.pack("<HHI", tag >> 16, tag & 0xFFFF, 0xFFFFFFFF) + items + end

    names = [element(0x30060022, n) + element(0x30060026, name) for n, name in ((b"1", b"lung"), (b"2", b"GTV-1"))]
    outlines = [
        sequence(0x30060040, *(element(0x30060050, b"0\\0\\" + z + b"\\1\\1\\" + z) for z in heights))
        + element(0x30060084, number)
        for number, heights in ((b"1", [b"10"]), (b"2", [b"-3.04", b"0"]))
    ]
    path = tmp_path / "rs.dcm"
    path.write_bytes(dicom(sequence(0x30060020, *names) + sequence(0x30060039, *outlines)))
    assert contour_heights(read_dicom(path), "GTV") == {-3.0, 0.0}
    with pytest.raises(DicomError, match=r"begins with 'heart'; there are \['GTV-1', 'lung'\]"):
        contour_heights(read_dicom(path), "heart")


def test_hounsfield_by_hand(tmp_path):
    body = b"".join(element(tag, struct.pack("<H", value)) for tag, value in ((0x00280010, 1), (0x00280011, 2)))
    body += element(0x00280103, struct.pack("<H", 1)) + element(0x00281052, b"-1024") + element(0x00281053, b"2")
    path = tmp_path / "ct.dcm"
    path.write_bytes(dicom(body + element(0x7FE00010, struct.pack("<2h", -5, 512))))
    assert hounsfield(read_dicom(path)).tolist() == [[-1034.0, 0.0]]  # 2 * -5 - 1024, 2 * 512 - 1024
    path.write_bytes(dicom(body, b"1.2.840.10008.1.2.1\0"))
    with pytest.raises(DicomError, match="transfer syntax"):
        read_dicom(path)
    path.write_bytes(b"GIF")
    with pytest.raises(DicomError, match="not a DICOM"):
        read_dicom(path)
