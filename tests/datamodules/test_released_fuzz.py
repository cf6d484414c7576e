"""Reference: the promise that a row is either an example or a fault with a reason, whatever JSON stands in it.

Run: pytest tests/datamodules/test_released_fuzz.py. One field of a good row is replaced by any JSON value.
"""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from datamodules.batch import BadExampleError
from datamodules.columns import Columns
from datamodules.labelled import stem_and_options
from datamodules.medxpertqa import MedXpertQA
from datamodules.mmedexpert import MMedExpert
from datamodules.mmmu_med import MMMUMed
from datamodules.modalities import modality_name
from datamodules.omnimedvqa import OmniMedVQA
from datamodules.options import lettered
from datamodules.places import find_picture
from datamodules.pmc_vqa import PMCVQA
from datamodules.r1_json import R1Json
from datamodules.row_set import NotAskedError
from datamodules.rows import Record
from datamodules.slake import Slake
from datamodules.table import Table
from tests.datamodules import released_shapes as made

ROWS = {
    MedXpertQA: made.medxpertqa_row(3),
    OmniMedVQA: made.omnimedvqa_row(3),
    Slake: made.slake_row(3, "Yes"),
    PMCVQA: made.pmc_vqa_row(3, "test", "v1"),
    MMMUMed: made.mmmu_row(3),
    R1Json: made.medvlm_row(3),
    MMedExpert: made.mmedexpert_row(3),
    Table: made.table_row(3),
}
OPTIONS = {Table: {"answer_as": "letter", "columns": Columns(**made.TABLE_COLUMNS)}}
"""Of sets that read rows by a mapping."""
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=True) | st.text(max_size=30),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from("ABCDE") | st.text(), inner, max_size=4)
    ),
    max_leaves=8,
)


@pytest.mark.parametrize("cls", ROWS, ids=lambda cls: cls.__name__)
@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_any_value_in_any_field_is_an_example_or_a_named_fault(cls, data):
    field = data.draw(st.sampled_from(sorted(ROWS[cls])))
    row = {**ROWS[cls], field: data.draw(JSON)}
    module = cls(cls.Config(root="made/root", **OPTIONS.get(cls, {})), specialty="s")
    try:
        example = module.example(Record("file.json", 1, row))
    except (BadExampleError, NotAskedError):
        return
    assert example.answer in (example.options or [example.answer])
    assert all(isinstance(source, Path) and ".." not in source.parts for source in example.images)
    assert all(isinstance(value, str) for value in example.tags.values())
    hash(example.question_id + example.patient_id)


@given(st.text(max_size=40) | st.sampled_from(["..", "a/../../b", "/", "~/x", "\\\\host\\share\\x", "C:x", "a//b"]))
def test_no_name_leaves_the_root(name):
    root = Path("made/root")
    try:
        path = find_picture(root, ("images", ""), name)
    except BadExampleError:
        return
    assert path.is_relative_to(root)
    assert path.resolve().is_relative_to(root.resolve())


@given(JSON)
def test_options_are_two_to_ten_texts_by_letter_or_refused(value):
    try:
        options = lettered(value)
    except BadExampleError:
        return
    assert 2 <= len(options) <= 10
    assert "".join(options) == "ABCDEFGHIJ"[: len(options)]


WORDS = st.text(st.characters(codec="ascii", categories=["Ll", "Nd"]), min_size=1, max_size=12)


@given(WORDS, st.lists(WORDS, min_size=2, max_size=10), st.sampled_from([" ", "\n", "  \n"]))
def test_options_inside_a_problem_come_back(stem, texts, gap):
    problem = gap.join([stem, *(f"{letter}) {text}" for letter, text in zip("ABCDEFGHIJ", texts, strict=False))])
    assert stem_and_options(problem) == (stem, dict(zip("ABCDEFGHIJ", texts, strict=False)))


@given(st.text(max_size=40))
def test_a_modality_has_one_name(text):
    assert modality_name(modality_name(text)) == modality_name(text)
