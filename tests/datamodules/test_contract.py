"""Reference: the promises of `datamodules.base`, for every DataModule in the package, found by walking it.

Run: pytest tests/datamodules/test_contract.py. Sets whose files are absent are skipped with the reason.
"""

import importlib
import math
import pkgutil
import sys
import tempfile
from collections import Counter
from dataclasses import fields
from functools import cache
from inspect import signature
from pathlib import Path

import pytest

import datamodules
from datamodules.assets import AssetError
from datamodules.base import SPLITS, VQADataModule
from datamodules.batch import BadExampleError, image_key, load_image
from datamodules.graded import Graded
from datamodules.loading import Feed
from datamodules.released import ReleasedSet
from tests.datamodules.released_shapes import SHAPES

MADE = tempfile.TemporaryDirectory(prefix="released_sets_")
"""Goes away with the process."""
SMALL = {"n_patients": 120, "n_rows": 300}
"""Sizes of the sets that are made on the spot; others are as large as their files."""


def is_concrete(cls: type) -> bool:
    """Whether a configuration can ask for it: it has all its methods, and is built from options alone."""
    whole = not any(getattr(getattr(cls, name, None), "__isabstractmethod__", False) for name in dir(cls))
    return whole and "config" in signature(cls).parameters


def walk() -> dict[str, type[VQADataModule]]:
    """Dotted path -> class, for every concrete DataModule in the package."""
    found = {}
    for info in pkgutil.walk_packages(datamodules.__path__, "datamodules."):
        for value in vars(importlib.import_module(info.name)).values():
            if isinstance(value, type) and issubclass(value, VQADataModule) and is_concrete(value):
                found[f"{value.__module__}.{value.__name__}"] = value
    return dict(sorted(found.items()))


@cache
def folder(path: str) -> dict:
    """Options of a released set: a folder made in its shape."""
    return SHAPES[path](Path(MADE.name) / path)


def build(cls: type[VQADataModule]) -> VQADataModule:
    """The class under small settings, its splits made; released sets read folders made in their shape."""
    names = {field.name for field in fields(cls.Config)}
    options = {name: value for name, value in SMALL.items() if name in names}
    if issubclass(cls, ReleasedSet):
        options |= folder(f"{cls.__module__}.{cls.__name__}")
    module = cls(cls.Config(**options), specialty="s")
    try:
        module.setup()
    except (AssetError, FileNotFoundError) as error:
        pytest.skip(f"its files are absent: {error}")
    return module


@cache
def built(path: str) -> VQADataModule:
    return build(walk()[path])


def written(module: VQADataModule) -> list:
    """Everything but the pictures."""
    return [
        (split, e.question_id, e.patient_id, e.question, e.options, e.answer, dict(e.reasoning), dict(e.tags))
        for split in SPLITS
        for e in module.splits[split]
    ]


every_class = pytest.mark.parametrize("path", list(walk()))


def test_the_walk_finds_phantoms_and_real_sets():
    assert len(walk()) >= 5
    assert "datamodules.phantoms.chest.ChestFilms" in walk()
    assert not {"datamodules.base.VQADataModule", "datamodules.phantoms.base.PhantomDataModule"} & set(walk())
    assert {path for path, cls in walk().items() if issubclass(cls, ReleasedSet)} == set(SHAPES)


def test_a_newcomer_is_found_without_a_list_to_edit(tmp_path, monkeypatch):
    (tmp_path / "newcomer.py").write_text(
        "from datamodules.base import VQADataModule\n\n"
        "class Newcomer(VQADataModule):\n    def examples(self):\n        yield from ()\n"
    )
    monkeypatch.setattr(datamodules, "__path__", [*datamodules.__path__, str(tmp_path)])
    assert "datamodules.newcomer.Newcomer" in walk()
    monkeypatch.delitem(sys.modules, "datamodules.newcomer")
    monkeypatch.delattr(datamodules, "newcomer")


@every_class
def test_splits_hold_different_patients_and_every_answer_is_an_option(path):
    module = built(path)
    patients = {name: {e.patient_id for e in module.splits[name]} for name in SPLITS}
    assert all(patients[name] for name in module.expected_splits())
    assert not patients["train"] & patients["val"]
    assert not patients["train"] & patients["test"]
    assert not patients["val"] & patients["test"]
    ids = [e.question_id for name in SPLITS for e in module.splits[name]]
    assert len(set(ids)) == len(ids)
    assert all(e.options.count(e.answer) == 1 for name in SPLITS for e in module.splits[name])
    if module.TEST_ONLY:
        for kind in ("rows", "questions"):
            with pytest.raises(BadExampleError, match="never a training set"):
                module.training_batches(Feed(kind))
    else:
        batches = list(module.training_batches(Feed("questions", 2), 3))
        assert [len({e.question_id for e in batch.examples}) for batch in batches] == [2, 2, 2]
    if not isinstance(module, ReleasedSet) and not isinstance(module.splits["train"][0], Graded):
        assert module.rows(), "nothing to imitate"


@every_class
def test_no_letter_is_favoured(path):
    module = built(path)
    if not module.config.shuffle_options:
        pytest.skip("keeps the letters of its release")
    by_size: dict[int, Counter] = {}
    for name in SPLITS:
        for e in module.splits[name]:
            by_size.setdefault(len(e.options), Counter())[e.letter] += 1
    for size, letters in by_size.items():
        n = letters.total()
        spread = math.sqrt(n * (size - 1)) / size  # of a binomial count with share 1/size
        for letter in "ABCDEFGHIJ"[:size]:
            assert abs(letters[letter] - n / size) <= 4.5 * spread + 1, (size, letters)


@every_class
def test_another_process_would_make_the_same_set(path):
    module = built(path)
    again = build(type(module))
    assert written(module) == written(again)
    for name in SPLITS:
        for first, second in list(zip(module.splits[name], again.splits[name], strict=True))[:3]:
            keys = [[image_key(load_image(source)) for source in e.images] for e in (first, second, first)]
            assert keys[0] == keys[1] == keys[2]


@every_class
def test_pictures_open_and_show_something(path):
    module = built(path)
    examples = [e for name in SPLITS for e in module.splits[name][:8]]
    pictures = [load_image(source) for e in examples for source in e.images]
    assert pictures, "no pictures at all"
    assert all(picture.mode == "RGB" and min(picture.size) >= 16 for picture in pictures)
    assert all(any(low < high for low, high in picture.getextrema()) for picture in pictures)
