"""Reference: pictures and small sets made here, by hand. Run: pytest tests/datamodules/test_check.py."""

import io
import random
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from datamodules.base import VQADataModule
from datamodules.batch import BadExampleError, Example, load_image
from datamodules.check import inside_root, quick, quick_check
from datamodules.places import find_picture


class Films(VQADataModule):
    """Forty patients; one picture file each."""

    names = staticmethod(lambda i: f"{i}.png")

    def examples(self):
        for i in range(40):
            yield Example(f"p{i}", (self.root / self.names(i),), "which?", ("a", "b", "c", "d"), "a", f"q{i}")


@pytest.fixture
def films(tmp_path):
    root = tmp_path / "films"
    root.mkdir()
    for i in range(40):
        Image.new("RGB", (20, 20), (i, 0, 0)).save(root / f"{i}.png")
    return Films(Films.Config(root=str(root), val_fraction=0.2), specialty="teeth")


def test_counts_by_hand(films):
    report = quick_check(films)
    assert sum(part["examples"] for part in report.values()) == 40
    for part in report.values():
        assert part["patients"] == part["examples"]
        assert part["with_traces"] == 0
        assert part["random_guess"] == 0.25
        assert part["majority_guess"] == max(part["letters"].values())
        assert sum(part["letters"].values()) == pytest.approx(1, abs=0.01)


def test_every_bad_picture_is_counted_and_ten_are_named(films):
    for i in range(12):
        (films.root / f"{i}.png").write_bytes(b"no")
    with pytest.raises(BadExampleError, match="12 of 40 pictures are bad") as caught:
        quick_check(films)
    assert str(caught.value).count("cannot be read as an image") == 10


def test_paths_are_checked_beyond_the_pictures_that_are_opened(films, monkeypatch):
    monkeypatch.setattr(quick, "MAX_PICTURES", 0)
    Image.new("RGB", (9, 9)).save(films.root.parent / "outside.png")
    films.names = lambda i: "../outside.png" if i == 7 else f"{i}.png"
    with pytest.raises(BadExampleError, match="outside the data set's root"):
        quick_check(films)


def test_the_root_itself_may_be_a_link(tmp_path):
    (tmp_path / "disk").mkdir()
    (tmp_path / "disk" / "a.png").write_bytes(b"")
    (tmp_path / "data").symlink_to(tmp_path / "disk")
    inside_root(tmp_path / "data" / "a.png", tmp_path / "data")


@pytest.mark.parametrize("root", [".", "./", ""])
def test_the_working_folder_as_root_holds_its_pictures_in_too(tmp_path, monkeypatch, root):
    (tmp_path / "data").mkdir()
    Image.new("RGB", (9, 9)).save(tmp_path / "outside.png")
    Image.new("RGB", (9, 9)).save(tmp_path / "data" / "own.png")
    (tmp_path / "data" / "link.png").symlink_to(tmp_path / "outside.png")
    monkeypatch.chdir(tmp_path / "data")
    assert find_picture(Path(root), ("",), "own.png") == Path("own.png")
    with pytest.raises(BadExampleError, match=r"the symbolic link link\.png leads out of the root"):
        find_picture(Path(root), ("",), "link.png")
    films = Films(Films.Config(root=root, val_fraction=0.2), specialty="teeth")
    films.names = lambda i: tmp_path / "outside.png"
    with pytest.raises(BadExampleError, match=r"outside\.png: lies outside the data set's root"):
        quick_check(films)


@pytest.mark.parametrize(("dtype", "peak"), [(np.uint16, 4095), (np.int32, 2**20), (np.float32, 1.0)])
def test_grey_levels_without_a_rule_are_refused_and_not_clipped(tmp_path, dtype, peak):
    # Pillow's own conversion maps every value above 255 to 255
    pixels = (np.linspace(0, peak, 400).reshape(20, 20)).astype(dtype)
    path = tmp_path / "film.tiff"
    Image.fromarray(pixels).save(path)
    with pytest.raises(BadExampleError, match=r"film.tiff: has mode .*grey-level window"):
        load_image(path)
    with pytest.raises(BadExampleError, match="picture in memory: has mode"):
        load_image(Image.fromarray(pixels))


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "1", "CMYK", "LA"])
def test_other_modes_become_rgb(tmp_path, mode):
    image = Image.new("L", (20, 20), 200).convert(mode)
    assert load_image(image).mode == "RGB"
    assert load_image(lambda: image).getpixel((3, 3)) == load_image(image).getpixel((3, 3))


def test_too_many_pixels_are_refused(tmp_path):
    path = tmp_path / "slide.png"
    Image.new("L", (101, 100)).save(path)
    assert load_image(path, max_pixels=10_100).size == (101, 100)
    with pytest.raises(BadExampleError, match=r"slide.png: 101x100 is over the limit of 10099"):
        load_image(path, max_pixels=10_099)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "TIFF", "GIF", "BMP", "WEBP"])
@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::PIL.Image.DecompressionBombWarning")
def test_damaged_files_open_or_are_refused_by_name(tmp_path, kind):
    rng = random.Random(kind)
    whole = io.BytesIO()
    Image.fromarray(np.random.RandomState(0).randint(0, 255, (24, 24, 3), dtype=np.uint8)).save(whole, kind)
    path, refusals = tmp_path / "film.img", []
    for _ in range(120):
        damaged = bytearray(whole.getvalue())
        if rng.random() < 0.3:
            damaged = damaged[: rng.randrange(1, len(damaged))]
        for _ in range(rng.randrange(1, 8)):
            damaged[rng.randrange(min(len(damaged), 200))] = rng.randrange(256)
        path.write_bytes(damaged)
        try:
            assert load_image(path, max_pixels=10**6).mode == "RGB"
        except BadExampleError as error:
            refusals.append(str(error))
    assert refusals
    assert all("film.img" in message for message in refusals)
