"""Reference: odd pictures whose shown pixels are computed in numpy.

Run: pytest tests/datamodules/test_shown.py.
"""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from datamodules.batch import Example, PictureError, image_key, load_image, picture_size
from datamodules.embedded import EmbeddedPicture
from datamodules.hashes import contents_key, picture_bytes
from datamodules.pictures import Paged
from datamodules.shown import pages
from lightning_modules.picture_reading import lasting_name
from tests.campaigns.odd_pictures import KINDS, damaged, exif, odd_picture, png

SEEDS = range(24 * len(KINDS))


def source_of(odd, folder: Path, *, paged: bool) -> Path | Paged:
    """The picture as a file, which a set's setting may have wrapped."""
    path = folder / odd.name
    path.write_bytes(odd.content)
    return Paged(path, odd.frames) if paged or odd.frames != "refuse" else path


def test_odd_pictures_are_shown_as_a_viewer_shows_them(tmp_path):
    refused = 0
    for seed in SEEDS:
        odd = odd_picture(seed)
        source = source_of(odd, tmp_path, paged=bool(seed % 2))
        if odd.pixels is None:
            refused += 1
            with pytest.raises(PictureError, match=rf"{odd.name}: .*(frames|window|transparent colour)"):
                load_image(source)
            continue
        shown = load_image(source)
        assert shown.mode == "RGB"
        assert picture_size(source) == shown.size == odd.pixels.shape[1::-1], (seed, odd.name)
        off = np.abs(np.asarray(shown).astype(int) - odd.pixels).max()
        assert off <= odd.tolerance, f"seed {seed}, {odd.name}: {off} grey levels off"
    assert refused > len(SEEDS) / 20


def test_in_memory_and_in_a_row_they_are_shown_alike(tmp_path, monkeypatch):
    for seed in range(3 * len(KINDS)):
        odd = odd_picture(seed)
        if odd.pixels is None or odd.frames != "refuse":
            continue
        held = [{"bytes": odd.content}]
        monkeypatch.setattr("datamodules.embedded.picture_column", lambda *_, held=held: held)
        embedded = EmbeddedPicture(tmp_path / "a.parquet", 0, 0, "image", "0" * 64)
        expected = image_key(load_image(source_of(odd, tmp_path, paged=False)))
        for source in (embedded, embedded.__call__, lambda odd=odd: Image.open(io.BytesIO(odd.content))):
            assert image_key(load_image(source)) == expected
        assert picture_size(embedded) == odd.pixels.shape[1::-1]


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::PIL.Image.DecompressionBombWarning")
def test_damaged_odd_pictures_are_shown_or_refused_by_name(tmp_path):
    path, refusals = tmp_path / "film.img", []
    for seed in SEEDS:
        path.write_bytes(damaged(seed))
        try:
            assert load_image(path, max_pixels=10**6).mode == "RGB"
        except PictureError as error:
            refusals.append(str(error))
    assert len(refusals) > len(SEEDS) / 4
    assert all("film.img" in message for message in refusals)


def test_half_clear_red_on_white_by_hand():
    # 128/255 of red 200 on white: 200 * 128/255 + 255 * 127/255 = 100.39 + 127 = 227.39; a channel of 0: 127
    image = Image.new("RGBA", (2, 1), (200, 0, 0, 128))
    assert load_image(image).getpixel((0, 0)) == (227, 127, 127)
    assert image.mode == "RGBA"  # what was handed in is not changed


def test_values_of_a_scanner_are_refused_with_the_brightest_of_them(tmp_path):
    path = tmp_path / "ct.png"
    Image.fromarray(np.linspace(0, 4095, 400).astype(np.uint16).reshape(20, 20)).save(path)
    with pytest.raises(PictureError, match=r"ct.png: .*brightest value is 4095 of 65535.*window"):
        load_image(path)


def test_an_inverted_film_of_16_bits_is_shown_bright(tmp_path):
    # photometric 0: the value 0 is white; Pillow itself does not turn 16 bits around
    path = tmp_path / "film.tif"
    film = Image.fromarray(np.array([[0, 65535, 32768]], np.uint16))
    film.save(path, tiffinfo={262: 0})
    assert [load_image(path).getpixel((x, 0))[0] for x in range(3)] == [255, 0, 127]


def test_a_program_is_not_started_for_a_picture(tmp_path):
    path = tmp_path / "a.eps"
    Image.new("RGB", (8, 8)).save(path, "EPS")
    with pytest.raises(PictureError, match=r"a.eps: cannot be read"):
        load_image(path)


def test_a_phones_second_picture_is_no_page(tmp_path):
    path = tmp_path / "phone.jpg"
    Image.new("RGB", (8, 8), "red").save(path, "MPO", save_all=True, append_images=[Image.new("RGB", (8, 8), "blue")])
    with Image.open(path) as image:
        assert image.n_frames == 2
        assert pages(image) == [0]
    assert load_image(path).getpixel((3, 3))[0] > 200


def test_unreadable_notes_leave_the_picture_as_it_is_stored(tmp_path):
    path = tmp_path / "a.jpg"
    for note in (b"Exif\0\0" + exif(6, "<")[:14], b"Exif\0\0nonsense", b"Exif\0\0" + exif(99, ">")):
        Image.new("RGB", (20, 10)).save(path, exif=note)
        assert load_image(path).size == picture_size(path) == (20, 10)


def test_hashes_know_how_a_picture_is_read(tmp_path, monkeypatch):
    path = tmp_path / "a.png"
    path.write_bytes(png(np.zeros((2, 2, 1), int), 8, 0))
    plain, first = picture_bytes(path), picture_bytes(Paged(path, "first"))
    assert plain != first
    keys = [
        contents_key((), [Example("p", (one,), "wide?", (), "yes", "q")])[0] for one in (path, Paged(path, "first"))
    ]
    assert keys[0] != keys[1]
    monkeypatch.setattr("datamodules.hashes.READING", "another")
    assert picture_bytes(path) != plain
    assert picture_bytes(Paged(path, "first")) != first
    assert picture_bytes(lambda: Image.new("L", (1, 1))) == b""


def test_a_page_that_was_replaced_is_read_again(tmp_path):
    path = tmp_path / "a.png"
    path.write_bytes(png(np.zeros((2, 2, 1), int), 8, 0))
    before = lasting_name(Paged(path, "first"))
    path.write_bytes(png(np.zeros((2, 3, 1), int), 8, 0))
    assert lasting_name(Paged(path, "first")) != before
    assert lasting_name(Paged(path, "first")) != lasting_name(Paged(path, "middle"))
