# Reference: each set's own rows and order, over seeded shapes. Run: pytest tests/datamodules/test_replay.py
import random
from collections import Counter
from dataclasses import replace

import pytest

from datamodules.base import VQADataModule
from datamodules.batch import BadExampleError
from datamodules.loading import Feed, Share
from datamodules.order import Beside, EndlessOrder
from datamodules.prompts import NEUTRAL
from datamodules.replay import Replayed, again, seed_of_replay
from tests.conftest import made_example


class Rows(VQADataModule):
    """So many patients, with a trace of each guideline named."""

    def __init__(self, called: str, patients: int, *names: str, **config) -> None:
        shares = {"val_fraction": 0.2, "test_fraction": 0.2, "batch_size": 6, "val_questions": 3}
        super().__init__(self.Config(**shares | config), specialty=called, seed=3)
        self.patients, self.names = patients, names

    def examples(self):
        for index in range(self.patients):
            example, answer = made_example(index, sizes=()), f"so {self.specialty}, the answer is"
            traces = {name: f"{answer} {example.answer}." for name in self.names}
            yield replace(example, question_id=f"{self.specialty}{index}", patient_id=str(index), reasoning=traces)


def pair(own=40, replayed=30, share=0.25, **config) -> Replayed:
    return Replayed(Rows("own", own, "intuitive", **config), Rows("base", replayed, NEUTRAL, "bayesian"), share)


FEED = Feed("rows", guidelines=frozenset({"intuitive", "differential"}))


def of(batch) -> Counter:
    return Counter("base" if name.startswith("base") else "own" for name in (e.question_id for e in batch.examples))


@pytest.mark.parametrize("seed", range(12))
def test_every_step_holds_the_share_and_each_set_goes_by_its_own_order(seed):
    rng = random.Random(seed)
    share, size = rng.choice([0.01, 0.1, 0.3, 0.5, 0.9]), rng.randint(2, 12)
    data = pair(rng.randint(40, 80), rng.randint(40, 80), share, batch_size=size)
    repeated = again(share, size)
    assert 1 <= repeated < size
    assert abs(repeated - share * size) <= 0.5 or repeated in (1, size - 1)
    batches = list(data.training_batches(FEED, 9))
    assert all(of(batch) == {"own": size - repeated, "base": repeated} for batch in batches)
    own, base = data.own.rows(FEED.guidelines), data.replayed.rows(FEED.guidelines | {NEUTRAL})
    orders = [EndlessOrder(len(own), size - repeated, 3), EndlessOrder(len(base), repeated, seed_of_replay(3))]
    for step, batch in enumerate(batches):
        rows = [*(own[i] for i in orders[0].step(step)), *(base[i] for i in orders[1].step(step))]
        assert list(zip(batch.examples, batch.guidelines, batch.completions, strict=True)) == rows
    assert orders[0].step(0) != orders[1].step(0)


def test_a_stream_goes_on_where_it_was_and_devices_have_the_whole_of_one():
    whole = list(pair().training_batches(FEED, 6))
    resumed = pair().training_batches(FEED, 6)
    resumed.load_state_dict({"step": 4})
    assert [batch.examples for batch in resumed] == [batch.examples for batch in whole[4:]]
    parts = [list(pair().training_batches(FEED, 6, Share(rank, 2))) for rank in range(2)]
    for one, first, second in zip(whole, *parts, strict=True):
        assert Counter(one.completions) == Counter(first.completions) + Counter(second.completions)


def test_only_training_rows_are_replayed_and_neutral_traces_are_among_them():
    data = pair()
    seen = {e.question_id for b in data.training_batches(FEED, 60) for e in b.examples}
    held = {e.question_id for e in (*data.own.splits["train"], *data.replayed.splits["train"])}
    assert seen == held
    base = data.replayed.splits["train"][0]
    kinds = {
        g for b in data.training_batches(FEED, 60) for e, g in zip(b.examples, b.guidelines, strict=True) if e == base
    }
    assert kinds == {NEUTRAL}  # its trace of bayesian is not among those that are learnt


def test_all_else_is_the_specialty_s_own():
    data = pair()
    assert data.splits is data.own.splits
    assert data.val_examples() == data.own.val_examples()
    assert list(data.val_rows(FEED.guidelines)) == list(data.own.val_rows(FEED.guidelines))
    assert (data.specialty, data.config) == ("own", data.own.config)
    # an epoch shows every own row once
    own = [
        e.question_id for b in pair(batch_size=5).training_batches(FEED) for e in b.examples if e.question_id[0] == "o"
    ]
    assert set(own) == {e.question_id for e in data.own.splits["train"]}


def test_what_cannot_be_mixed_is_told():
    with pytest.raises(ValueError, match="only rows to imitate are replayed, and questions are asked for"):
        pair().training_batches(Feed("questions"), 2)
    with pytest.raises(ValueError, match="a step takes 1 rows, at least one of them replayed"):
        pair(batch_size=1).training_batches(FEED, 2)
    with pytest.raises(ValueError, match="for 8 devices"):
        pair().training_batches(FEED, 2, Share(0, 8))
    with pytest.raises(BadExampleError, match="a step takes 6 rows that are replayed, and 'base' has"):
        pair(replayed=6, share=0.8, batch_size=8).training_batches(FEED, 2)
    data = pair()
    data.replayed.TEST_ONLY = "for examination"
    with pytest.raises(BadExampleError, match="specialty 'base': never a training set"):
        data.training_batches(FEED, 2)


def test_items_of_sets_beside_each_other_are_counted_through():
    first, second = EndlessOrder(9, 2, 0), EndlessOrder(5, 3, 1)
    order = Beside([first, second])
    for step in range(12):
        assert order.step(step) == first.step(step) + [9 + item for item in second.step(step)]
