# Reference: counts and sets, over seeded shapes. Run: pytest tests/datamodules/test_mixture.py
import random
from collections import Counter
from dataclasses import replace

import pytest

from datamodules.base import VQADataModule, uniform_hash
from datamodules.batch import SPECIALTY, BadExampleError
from datamodules.loading import Feed, Share
from datamodules.mixture import Mixture
from datamodules.order import InTurn, OneAfterAnother
from tests.conftest import made_example


class Few(VQADataModule):
    """So many patients; ids repeat from set to set."""

    def __init__(self, patients: int, **config) -> None:
        shares = {"val_fraction": 0.2, "test_fraction": 0.2, "batch_size": 4, "val_questions": 3}
        super().__init__(self.Config(**shares | config))
        self.patients = patients

    def examples(self):
        for index in range(self.patients):
            yield replace(made_example(index, sizes=()), reasoning={"differential": "a", "bayesian": "b"})

    def plainly(self, example, guideline):
        return guideline == ("bayesian", "differential")[uniform_hash(example.question_id) < 0.5]  # hangs on the id


def mixture(*patients, seed=0, sequence=0) -> Mixture:
    members = {f"s{number}": Few(count) for number, count in enumerate(patients)}
    return Mixture(members, specialty="agent", seed=seed, sequence=sequence)


@pytest.mark.parametrize("seed", range(15))
def test_every_step_has_as_many_of_each_set_and_every_epoch_shows_all(seed):
    rng = random.Random(seed)
    each = rng.randint(1, 5)
    sizes = {f"s{n}": rng.randint(each, 30) for n in range(rng.randint(1, 5))}
    order, starts = InTurn(sizes, each, seed), {}
    first = 0
    for name, size in sizes.items():
        starts[name] = range(first, first + size)
        first += size
    seen = {name: [] for name in sizes}
    for step in range(40):
        items = order.step(step)
        assert len(items) == len(set(items)) == each * len(sizes)
        for place, item in enumerate(items):
            name = list(sizes)[place % len(sizes)]  # in turn
            assert item in starts[name]
            seen[name].append(item)
    for name, items in seen.items():  # epochs: nothing comes twice as often as another, give or take one
        counts = Counter(items)
        assert max(counts.values()) - min(counts.get(item, 0) for item in starts[name]) <= 1
    assert [order.step(7), order.step(3)] == [InTurn(sizes, each, seed).step(step) for step in (7, 3)]


def test_a_set_s_order_does_not_depend_on_the_sets_beside_it():
    alone, beside = InTurn({"b": 20}, 2, 5), InTurn({"a": 9, "b": 20}, 2, 5)
    for step in range(15):
        assert [item + 9 for item in alone.step(step)] == beside.step(step)[1::2]


def test_questions_are_told_apart_and_keep_their_splits():
    mixed = mixture(40, 60)
    for split, held in mixed.splits.items():
        assert len({example.question_id for example in held}) == len(held)
        for example in held:
            specialty, _, question_id = example.question_id.partition("/")
            assert example.tags[SPECIALTY] == specialty
            own = {e.question_id: e for e in mixed.members[specialty].splits[split]}
            assert own[question_id].options == example.options
    assert [example.tags[SPECIALTY] for example in mixed.val_examples()] == ["s0"] * 3 + ["s1"] * 3


@pytest.mark.parametrize("ranks", [1, 2, 3])
def test_batches_go_on_where_they_were_and_devices_share_a_step(ranks):
    def steps(share):
        return mixture(40, 25, 31).training_batches(Feed("questions", 6), 8, share)

    whole = [[example.question_id for example in batch.examples] for batch in steps(Share())]
    parts = [list(steps(Share(rank, ranks))) for rank in range(ranks)]
    for step, ids in enumerate(whole):
        assert Counter(name.partition("/")[0] for name in ids) == {"s0": 2, "s1": 2, "s2": 2}
        assert sorted(e.question_id for part in parts for e in part[step].examples) == sorted(ids)
    ahead = list(mixture(40, 25, 31).training_batches(Feed("questions", 6, ahead=2), 8, Share()))
    for step in range(6):
        assert [example.question_id for example in ahead[step].ahead] == whole[step + 1] + whole[step + 2]
    later = steps(Share())
    later.load_state_dict({"step": 5})
    assert [[e.question_id for e in batch.examples] for batch in later] == whole[5:]


@pytest.mark.parametrize("guidelines", [None, frozenset({"bayesian"})])
def test_rows_are_the_sets_own_and_a_step_has_as_many_of_each(guidelines):
    mixed = mixture(40, 25)
    own = [
        (f"{name}/{example.question_id}", guideline, text)
        for name, member in mixed.members.items()
        for example, guideline, text in member.rows(guidelines)
    ]
    told = [(example.question_id, guideline, text) for example, guideline, text in mixed.rows(guidelines)]
    assert told == own
    assert {guideline for _, guideline, _ in told} == {"neutral", *(guidelines or ("bayesian", "differential"))}
    for example, guideline, _ in mixed.rows(guidelines):
        specialty, _, question_id = example.question_id.partition("/")
        plain = mixed.members[specialty].plainly(replace(example, question_id=question_id), guideline)
        assert mixed.plainly(example, guideline) == plain
    seen = Counter()
    for batch in mixed.training_batches(Feed("rows", 6, guidelines=guidelines), 40):
        rows = list(zip([e.question_id for e in batch.examples], batch.guidelines, batch.completions, strict=True))
        assert Counter(name.partition("/")[0] for name, _, _ in rows) == {"s0": 3, "s1": 3}
        seen.update(rows)
    assert set(seen) == set(own)


@pytest.mark.parametrize("seed", range(15))
def test_one_set_after_the_other_has_its_share_of_the_steps_and_its_own_order(seed):
    rng = random.Random(seed)
    each, count = rng.randint(1, 5), rng.randint(1, 5)
    sizes = {f"s{n}": rng.randint(each, 30) for n in range(count)}
    steps = rng.randint(count, 40)
    order, before, taken = OneAfterAnother(sizes, each, seed, steps), 0, []
    for name, size in sizes.items():
        alone, own = OneAfterAnother({name: size}, each, seed, steps), 0
        while len(taken) < steps and before <= order.step(len(taken))[0] < before + size:
            assert order.step(len(taken)) == [before + item for item in alone.step(own)]
            taken.append(name)
            own += 1
        before += size
    assert len(taken) == steps  # each set in one piece, in order
    assert max(Counter(taken).values()) - min(Counter(taken)[name] for name in sizes) <= 1
    last = list(sizes.values())[-1]
    assert all(before - last <= item < before for item in order.step(steps + 5))


def test_in_a_sequence_devices_share_a_step_of_one_set():
    def steps(share):
        return list(mixture(40, 25, sequence=8).training_batches(Feed("questions", 5), 8, share))

    whole, parts = steps(Share()), [steps(Share(rank, 2)) for rank in range(2)]
    assert [{e.tags[SPECIALTY] for e in batch.examples} for batch in whole] == [{"s0"}] * 4 + [{"s1"}] * 4
    for step, batch in enumerate(whole):
        ids = sorted(example.question_id for example in batch.examples)
        assert sorted(e.question_id for part in parts for e in part[step].examples) == ids


def test_what_cannot_be_mixed_is_refused_with_the_specialty():
    with pytest.raises(BadExampleError, match="'s1': a step takes 20 questions of each specialty, and the training"):
        mixture(60, 25).training_batches(Feed("questions", 40))
    with pytest.raises(ValueError, match="as many questions of each of 2 specialties: questions per step is 5"):
        mixture(40, 25).training_batches(Feed("questions", 5))
    with pytest.raises(ValueError, match=r"as many rows of each of 3 specialties: data\.batch_size is 4"):
        mixture(40, 25, 30).training_batches(Feed("rows"))
    for chosen in ({"spare": 1}, {"questions": ("a",)}):
        with pytest.raises(ValueError, match="no questions are chosen by pass rate"):
            mixture(40, 25).training_batches(Feed("questions", 4, **chosen))
    members = {"s0": Few(40), "s1": Few(25, answer_with="text")}
    with pytest.raises(ValueError, match=r"answer_with differs: \{'s0': 'letter', 's1': 'text'\}"):
        Mixture(members, specialty="agent", seed=0).training_batches(Feed("rows", 4))
    with pytest.raises(ValueError, match="1 steps are too few for 2 sets"):
        mixture(40, 25, sequence=1).training_batches(Feed("questions", 4))
    with pytest.raises(ValueError, match="there are 5 devices"):
        mixture(40, 25).training_batches(Feed("questions", 4), share=Share(0, 5))
    examination = mixture(40, 25)
    examination.members["s1"].TEST_ONLY = "made for it"
    with pytest.raises(BadExampleError, match="never a training set: made for it"):
        examination.training_batches(Feed("questions", 4))
