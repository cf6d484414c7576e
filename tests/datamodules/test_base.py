"""Reference: the definitions of splits and batches, and small sets by hand.

Run: pytest tests/datamodules/test_base.py.
"""

from collections import Counter
from threading import Thread
from types import SimpleNamespace

import pytest

from datamodules.base import SPLITS, VQADataModule, uniform_hash
from datamodules.batch import BadExampleError, Example
from datamodules.prompts import NEUTRAL


class Made(VQADataModule):
    """Two questions for each of `n` patients, no pictures; `order` reverses the rows."""

    n, order = 200, 1

    def examples(self):
        rows = [(patient, part) for patient in range(self.n) for part in range(2)]
        for patient, part in rows[:: self.order]:
            yield Example(
                f"p{patient}", (), "which?", ("a", "b", "c"), "b", f"q{patient}-{part}", {"intuitive": "so b."}
            )


class Reversed(Made):
    order = -1


def ids(module, split):
    return [example.question_id for example in module.splits[split]]


def test_splits_depend_on_ids_and_not_on_the_order_of_rows():
    first, second = Made(), Reversed()
    assert all(ids(first, name) == ids(second, name) for name in SPLITS)


def test_a_patient_added_later_moves_nobody():
    more = Made()
    more.n = 260
    for name in SPLITS:
        assert set(ids(Made(), name)) <= set(ids(more, name))


def test_a_set_can_be_read_in_a_thread_while_another_is_looked_at():
    def unfit(*_):  # as the tiny model's tokenizer, which is made of other sets' texts in a thread
        thread = Thread(target=lambda: Made().splits, daemon=True)
        thread.start()
        thread.join(20)
        assert not thread.is_alive()
        return {}

    module = Made()
    module.sight = SimpleNamespace(unfit=unfit)
    assert module.splits is module.splits
    assert module.splits == Made().splits


def test_fractions_are_about_what_was_asked_for():
    module = Made(Made.Config(val_fraction=0.2, test_fraction=0.3))
    shares = {name: len(module.splits[name]) / 400 for name in SPLITS}
    assert shares["val"] == pytest.approx(0.2, abs=0.08)
    assert shares["test"] == pytest.approx(0.3, abs=0.08)
    assert sum(shares.values()) == 1


def test_another_split_seed_moves_patients_and_the_run_seed_does_not():
    assert ids(Made(), "test") != ids(Made(Made.Config(split_seed=1)), "test")
    assert ids(Made(), "test") == ids(Made(seed=5), "test")


def test_options_are_shuffled_by_question_and_can_be_left_alone():
    letters = Counter(e.letter for name in SPLITS for e in Made().splits[name])
    assert set(letters) == {"A", "B", "C"}
    assert max(letters.values()) < 0.5 * letters.total()
    fixed = Made(Made.Config(shuffle_options=False))
    assert {e.letter for name in SPLITS for e in fixed.splits[name]} == {"B"}


def test_rows_carry_each_trace_under_its_instruction_and_under_none():
    rows = Made().rows()
    assert Counter(guideline for _, guideline, _ in rows) == {"intuitive": len(rows) // 2, NEUTRAL: len(rows) // 2}
    example, _, completion = rows[0]
    assert completion == example.trace("intuitive")


def test_faults_are_told_with_the_specialty_and_the_root():
    class Faulty(Made):
        def examples(self):
            yield Example("p", (), "which?", ("a", "b"), "c", "q1")

    with pytest.raises(BadExampleError, match=r"specialty 'teeth' \(root='there'\).*'q1'.*'c' is not among"):
        Faulty(Faulty.Config(root="there"), specialty="teeth").setup()


@pytest.mark.parametrize(
    "bad",
    [{"val_fraction": 1.0}, {"test_fraction": -0.1}, {"val_fraction": 0.5, "test_fraction": 0.5}, {"batch_size": 0}],
)
def test_impossible_settings_are_refused(bad):
    with pytest.raises(ValueError, match=next(iter(bad)).split("_")[-1]):
        Made.Config(**bad)


def test_uniform_hash_is_uniform_and_separates_its_keys():
    draws = [uniform_hash("k", i) for i in range(2000)]
    assert sum(draws) / 2000 == pytest.approx(0.5, abs=0.03)  # standard error 0.0065
    assert uniform_hash("a", "bc") != uniform_hash("ab", "c")
