"""Reference: the definitions of an epoch, of a step and of a device's share; one process for what workers do.

Run: pytest tests/datamodules/test_loading.py.
"""

import multiprocessing
import os
import pickle
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import lightning as L
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from datamodules.base import VQADataModule
from datamodules.batch import BadExampleError, Batch, Example, PictureError, image_key, load_image
from datamodules.loading import (
    Batches,
    Feed,
    Share,
    TrainingBatches,
    TrainingSteps,
    collate_questions,
    question_batches,
)
from datamodules.order import EndlessOrder, permutation
from tests.conftest import noise_image

ROOT = Path(__file__).resolve().parents[2]
SIZES = st.integers(1, 12).flatmap(lambda n: st.tuples(st.just(n), st.integers(1, n)))
"""(items, items per step), sets of one item and steps of the whole set among them."""


# -- the order -------------------------------------------------------------------------------------------------------


@settings(deadline=None)
@given(sizes=SIZES, seed=st.integers(0, 3))
def test_every_epoch_holds_every_item_once_and_no_step_holds_one_twice(sizes, seed):
    n, size = sizes
    order = EndlessOrder(n, size, seed)
    steps = [order.step(step) for step in range(6 * n)]
    stream = [item for step in steps for item in step]
    assert all(len(set(step)) == len(step) == size for step in steps)
    assert all(sorted(stream[at : at + n]) == list(range(n)) for at in range(0, len(stream) - n + 1, n))


@settings(deadline=None)
@given(sizes=SIZES, seed=st.integers(0, 3), draw=st.randoms(use_true_random=False))
def test_a_step_does_not_depend_on_the_steps_asked_for_before(sizes, seed, draw):
    n, size = sizes
    once, asked = EndlessOrder(n, size, seed), list(range(4 * n))
    expected = [EndlessOrder(n, size, seed).step(step) for step in asked]
    draw.shuffle(asked)
    assert all(once.step(step) == expected[step] for step in asked)


@settings(deadline=None)
@given(sizes=SIZES, seed=st.integers(0, 3))
def test_only_what_would_repeat_is_moved_and_only_to_just_behind_the_step(sizes, seed):
    n, size = sizes
    order = EndlessOrder(n, size, seed)
    for epoch in range(5):
        taken = epoch * n % size
        held = set(order.epoch(epoch - 1)[n - taken :]) if taken else set()
        drawn, got = list(permutation(n, seed, epoch)), list(order.epoch(epoch))
        others = [item for item in drawn if item not in held]
        assert [item for item in got if item not in held] == others
        assert [item for item in got if item in held] == [item for item in drawn if item in held]
        for item in held:  # it stands where it was drawn, or at the first places behind the step
            assert got.index(item) >= size - taken
            assert got.index(item) == drawn.index(item) or got.index(item) < size - taken + len(held)


def test_a_seam_by_hand():
    # Four items, three a step. The draws are 0 3 1 2 and 2 0 3 1 (checked below). Step 0 takes 0 3 1. Step 1
    # takes 2, and from the second epoch two that are not 2: 0 3. The 2 comes just behind: 2 1.
    seed = 3025
    assert [list(permutation(4, seed, epoch)) for epoch in (0, 1)] == [[0, 3, 1, 2], [2, 0, 3, 1]]
    order = EndlessOrder(4, 3, seed)
    assert list(order.epoch(1)) == [0, 3, 2, 1]
    assert [order.step(0), order.step(1)] == [[0, 3, 1], [2, 0, 3]]


def test_another_seed_gives_another_order_and_another_epoch_too():
    assert EndlessOrder(50, 5, 0).epoch(0) != EndlessOrder(50, 5, 1).epoch(0) != EndlessOrder(50, 5, 1).epoch(1)


def test_the_order_leaves_the_global_random_streams_alone():
    states = random.getstate(), torch.get_rng_state()
    EndlessOrder(9, 4, 0, spare=2).spares(7)
    assert random.getstate() == states[0]
    assert torch.equal(torch.get_rng_state(), states[1])


@settings(deadline=None)
@given(
    sizes=st.tuples(st.integers(1, 6), st.integers(1, 5), st.integers(0, 4)),
    seed=st.integers(0, 3),
    step=st.integers(0, 30),
)
def test_spares_are_distinct_and_none_of_the_step(sizes, seed, step):
    size, spare, rest = sizes
    order = EndlessOrder(size + spare + rest, size, seed, spare=spare)
    spares = order.spares(step)
    assert len(set(spares)) == len(spares) == spare
    assert not set(spares) & set(order.step(step))
    assert order.step(step) == EndlessOrder(size + spare + rest, size, seed).step(step)


def test_every_other_item_is_as_likely_to_be_spare():
    order = EndlessOrder(6, 2, 0, spare=1)
    chosen = Counter((item, spare) for step in range(3000) for spare in order.spares(step) for item in order.step(step))
    # Of 3000 steps an item stands in 1000; each of the 5 others is then spare with probability 1/4 of the 4 outside:
    # a pair is expected 3000 * 2 / 6 * (4 / 5) * (1 / 4) = 200 times, with a deviation of about 14.
    assert all(130 < chosen[a, b] < 270 for a in range(6) for b in range(6) if a != b)


@pytest.mark.parametrize(("n", "size", "spare"), [(3, 4, 0), (5, 4, 2), (5, 0, 0), (5, 2, -1)])
def test_a_step_that_would_need_an_item_twice_is_refused(n, size, spare):
    with pytest.raises(ValueError, match=f"size={size} and spare={spare} for {n} items"):
        EndlessOrder(n, size, 0, spare=spare)


# -- data modules ----------------------------------------------------------------------------------------------------


class Made(VQADataModule):
    """One question for each of `n` patients, with two traces and a picture file where there is a root."""

    n = 60

    def examples(self):
        for i in range(self.n):
            images = (self.root / f"{i % 7}.png",) if self.config.root else ()
            traces = {"intuitive": f"{i} so b.", "bayesian": f"{i} thus b."}
            yield Example(f"p{i}", images, f"which of {i}?", ("a", "b", "c"), "b", f"q{i:02}", traces)


class Traceless(Made):
    def examples(self):
        yield from (Example(f"p{i}", (), "which?", ("a", "b"), "a", f"q{i}") for i in range(60))


def named(batch: Batch) -> list:
    return list(zip((e.question_id for e in batch.examples), batch.completions or batch.examples, strict=True))


FEEDS = [Feed("rows", 7), Feed("questions", 7), Feed("rows", 5, frozenset({"bayesian"})), Feed("questions", 6, spare=5)]


@pytest.mark.parametrize("feed", FEEDS)
@pytest.mark.parametrize("ranks", [1, 2, 3, 5])
def test_the_shares_of_all_devices_are_the_batch_of_one(feed, ranks):
    module = Made()
    whole = list(module.training_batches(feed, 12))
    shares = [list(module.training_batches(feed, 12, Share(rank, ranks))) for rank in range(ranks)]
    for step, batch in enumerate(whole):
        assert batch.step == step
        assert len(batch) == feed.size
        for rank in range(ranks):
            part = shares[rank][step]
            assert part.step == step
            assert named(part) == named(batch)[rank::ranks]
            assert part.guidelines == batch.guidelines[rank::ranks]
            assert (part.spares is None) == (feed.spare == 0)
            if feed.spare:
                assert named(part.spares) == named(batch.spares)


def test_a_step_takes_rows_of_the_guidelines_or_distinct_questions():
    rows, questions = Feed("rows", 9, frozenset({"bayesian"})), Feed("questions", 6, spare=5)
    for batch in Made().training_batches(rows):
        assert {text.split()[1] for text in batch.completions} == {"thus"}
        assert set(batch.guidelines) <= {"bayesian", "neutral"}
    for batch in Made().training_batches(questions):
        assert batch.completions == batch.spares.completions == ()
        ids = [e.question_id for e in (*batch.examples, *batch.spares.examples)]
        assert len(set(ids)) == 11


def test_without_a_size_the_data_set_tells_it():
    assert len(next(iter(Made(Made.Config(batch_size=5)).training_batches(Feed("rows"), 1)))) == 5


def test_without_a_number_of_steps_every_item_comes():
    module = Made()
    asked = {e.question_id for batch in module.training_batches(Feed("questions", 7)) for e in batch.examples}
    assert asked == {e.question_id for e in module.splits["train"]}


@pytest.mark.parametrize(
    ("feed", "message"),
    [
        (Feed("questions", 43), r"'teeth': a step takes 43 questions, and the training split has 42"),
        (Feed("questions", 30, spare=13), r"takes 30 questions and 13 spare ones, and the training split has 42"),
        (Feed("rows", 169), r"takes 169 rows, and the training split has 168"),
        (Feed("rows", 2, frozenset({"differential"})), r"carries a reasoning trace of \['differential'\]"),
    ],
)
def test_more_than_there_is_is_refused_with_both_numbers(feed, message):
    module = Made(specialty="teeth")
    assert len(module.splits["train"]) == 42  # of 60, by the hash of their ids
    with pytest.raises(BadExampleError, match=message):
        module.training_batches(feed)


def test_more_than_was_chosen_is_refused_with_the_number_of_the_chosen():
    module = Made(specialty="teeth")
    few = tuple(example.question_id for example in module.splits["train"][:4])
    with pytest.raises(
        BadExampleError, match="takes 2 questions and 6 spare ones, and of the training split 4 are chosen"
    ):
        module.training_batches(Feed("questions", 2, spare=6, questions=few))


def test_without_traces_imitation_is_refused_by_name():
    with pytest.raises(BadExampleError, match=r"'teeth'.*no training example carries a reasoning trace$"):
        Traceless(specialty="teeth").training_batches(Feed("rows"))


def test_fewer_items_than_devices_are_refused():
    with pytest.raises(ValueError, match="takes 3 questions over all devices, and there are 4 devices"):
        Made().training_batches(Feed("questions", 3), 1, Share(0, 4))


# -- going on --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Read:
    """Reads as a policy does, with the pixels in place of an input."""

    def __call__(self, source):
        image = load_image(source)
        return image_key(image), torch.frombuffer(bytearray(image.tobytes()), dtype=torch.uint8)


@pytest.fixture
def pictured(tmp_path):
    """A data module of 60 questions on seven picture files."""
    for i in range(7):
        noise_image(i, 9 + i, 12).save(tmp_path / f"{i}.png")

    def make(**options):
        return Made(Made.Config(root=str(tmp_path), **options))

    return make


def seen(batch: Batch) -> tuple:
    return batch.step, named(batch), [[(key, pixels.tolist()) for key, pixels in row] for row in batch.pictures]


@pytest.mark.parametrize("num_workers", [0, 2])
@pytest.mark.parametrize("stop", [0, 1, 4, 9])
def test_a_loader_goes_on_where_its_state_was_taken(pictured, num_workers, stop):
    feed = Feed("questions", 7, read_picture=Read())
    make = pictured(num_workers=num_workers).training_batches
    whole = [seen(batch) for batch in make(feed, 10)]
    first, second = make(feed, 10), make(feed, 10)
    steps = iter(first)
    used = [seen(next(steps)) for _ in range(stop)]
    assert first.state_dict() == {"step": stop}  # whatever the workers have read ahead
    second.load_state_dict(first.state_dict())
    steps.close()
    assert used + [seen(batch) for batch in second] == whole
    assert all(batch[2] for batch in whole) == bool(num_workers)
    assert not multiprocessing.active_children()


def test_workers_read_what_the_process_itself_would_read(pictured):
    feed = Feed("questions", 7, spare=3, read_picture=Read())
    inside, outside = (pictured(num_workers=n).training_batches(feed, 6) for n in (0, 2))
    for one, other in zip(inside, outside, strict=True):
        assert named(one) == named(other)
        assert named(one.spares) == named(other.spares)
        assert one.pictures == other.spares.pictures == ()
        assert one.pictures_of(0) is None
        for row, example in enumerate(one.examples):
            expected = [Read()(source) for source in example.images]
            assert [key for key, _ in other.pictures_of(row)] == [key for key, _ in expected]
            assert all(torch.equal(a, b) for (_, a), (_, b) in zip(other.pictures_of(row), expected, strict=True))


def test_a_further_pass_goes_on_in_the_stream():
    loader, whole = (Made().training_batches(Feed("rows", 7), steps) for steps in (4, 8))
    passes = [[seen(batch) for batch in loader] for _ in range(2)]
    assert passes[0] + passes[1] == [seen(batch) for batch in whole]
    assert len(loader) == 4


def test_workers_leave_the_global_random_streams_alone(pictured):
    states = random.getstate(), torch.get_rng_state()
    assert len(list(pictured(num_workers=1).training_batches(Feed("rows", 7, read_picture=Read()), 2))) == 2
    assert random.getstate() == states[0]
    assert torch.equal(torch.get_rng_state(), states[1])


# -- errors and ends -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("spoil", "trouble"), [(Path.unlink, "missing"), (lambda p: p.write_bytes(b"no"), "broken")])
def test_a_broken_picture_in_a_worker_is_told_as_in_the_process(pictured, tmp_path, spoil, trouble):
    loader = pictured(num_workers=2).training_batches(Feed("questions", 7, read_picture=Read()), 6)
    batch = next(iter(loader))
    path = batch.examples[0].images[0]
    spoil(path)
    with pytest.raises(PictureError) as here:
        Read()(path)
    loader.load_state_dict({"step": 0})
    with pytest.raises(PictureError) as there:
        list(loader)
    assert str(there.value) == str(here.value)
    assert str(path) in str(there.value)
    assert there.value.trouble == trouble
    assert loader.state_dict() == {"step": 0}
    assert not multiprocessing.active_children()


def test_a_defect_in_a_worker_shows_its_traceback():
    def read(source):
        raise AttributeError("a defect of ours")

    batches = Batches(lambda _: Batch((Example("p", (noise_image(0, 8, 8),), "?", ("a", "b"), "a", "q"),)), 1)
    batches.read_picture, batches.num_workers = read, 1
    with pytest.raises(AttributeError, match=r"(?s)in DataLoader worker.*in read.*a defect of ours"):
        list(batches)


def test_a_picture_error_survives_the_way_between_processes():
    error = pickle.loads(pickle.dumps(PictureError("broken", "a.png: torn")))
    assert (type(error), str(error), error.trouble) == (PictureError, "a.png: torn", "broken")


def test_what_is_sent_to_workers_can_be_pickled(pictured):
    steps = pictured().training_batches(FEEDS[3], 2).batch_of
    assert named(pickle.loads(pickle.dumps(steps))(3)) == named(steps(3))


SCRIPT = """
import multiprocessing, signal, sys, time
from pathlib import Path
import torch
from datamodules.batch import Batch, Example
from datamodules.loading import Batches
from PIL import Image

def read(source):
    time.sleep({delay})
    return "key", torch.zeros(300, 300)

question = Example("p", tuple(Image.new("RGB", (8, 8)) for _ in range(64)), "?", ("a", "b"), "a", "q")
loader = Batches(lambda step: Batch((question,) * 64, step=step), 10_000, read_picture=read, num_workers=2)
{handler}
try:
    for batch in loader:
        if batch.step == 0:
            print(*(child.pid for child in multiprocessing.active_children()), flush=True)
        {then}
        print(batch.step, flush=True)
except KeyboardInterrupt:
    print("interrupted", len(multiprocessing.active_children()), flush=True)
"""


def started(tmp_path, *, delay=0.0, handler="", then="time.sleep(0.01)"):
    """A process of its own group that goes through batches, and its workers' ids."""
    script = tmp_path / "script.py"
    script.write_text(SCRIPT.format(delay=delay, handler=handler, then=then))
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(
        [sys.executable, str(script)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a background shell would have it ignored
        env=environment,
    )
    return process, [int(pid) for pid in process.stdout.readline().split()]


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def gone(pids: list[int]) -> bool:
    """Whether all end; the limit only ends a test that has failed."""
    for _ in range(600):
        if not any(map(alive, pids)):
            return True
        time.sleep(0.1)
    for pid in filter(alive, pids):
        os.kill(pid, signal.SIGKILL)
    return False


needs_proc = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="asks /proc which processes live")


@needs_proc
@pytest.mark.parametrize("delay", [0.0, 0.02], ids=["in a step", "waiting for workers"])
def test_ctrl_c_ends_the_process_and_its_workers(tmp_path, delay):
    process, workers = started(tmp_path, delay=delay)
    assert len(workers) == 2
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to every process
    out, errors = process.communicate()
    assert out.splitlines()[-1] == "interrupted 0"  # workers
    assert errors == ""
    assert process.returncode == 0
    assert gone(workers)


@needs_proc
@pytest.mark.parametrize("then", ["time.sleep(0.01)", "time.sleep(1000)"], ids=["reading", "with full queues"])
def test_workers_do_not_outlive_a_killed_parent(tmp_path, then):
    process, workers = started(tmp_path, then=then)
    process.kill()
    process.wait()
    assert gone(workers)


@needs_proc
def test_a_signal_to_the_whole_job_is_the_parents_to_heed(tmp_path):
    handler = "signals = []\nfor n in (2, 15, 1): signal.signal(n, lambda number, frame: signals.append(number))"
    then = "if len(signals) == 3: print(*signals, flush=True); break"
    process, workers = started(tmp_path, handler=handler, then=then)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        for pid in workers:
            os.kill(pid, number)
    process.stdout.readline()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        os.kill(process.pid, number)
    out, _ = process.communicate()
    assert sorted(out.splitlines()[-1].split()) == ["1", "15", "2"]  # the workers served on until then
    assert process.returncode == 0
    assert gone(workers)


# -- with a Trainer --------------------------------------------------------------------------------------------------


class Listener(L.LightningModule):
    """Notes what it is shown."""

    def __init__(self, feed: Feed):
        super().__init__()
        self.feed_, self.shown, self.weight = feed, [], torch.nn.Parameter(torch.zeros(()))

    def feed(self):
        return self.feed_

    def training_step(self, batch, batch_idx):
        self.shown.append(("train", seen(batch)))
        return self.weight * 0

    def validation_step(self, batch, batch_idx):
        self.shown.append(("val", seen(batch)))

    def test_step(self, batch, batch_idx):
        self.shown.append(("test", seen(batch)))

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=1.0)

    def transfer_batch_to_device(self, batch, device, dataloader_idx):
        return batch

    def of(self, name):
        return [batch for kind, batch in self.shown if kind == name]


def trainer(tmp_path, **options) -> L.Trainer:
    return L.Trainer(
        accelerator="cpu", logger=False, enable_progress_bar=False, enable_model_summary=False,
        enable_checkpointing=False, default_root_dir=tmp_path, num_sanity_val_steps=0, **options,
    )  # fmt: skip


@pytest.mark.parametrize("num_workers", [0, 2])
def test_a_fit_that_is_resumed_sees_the_batches_of_one_that_was_not(pictured, tmp_path, num_workers):
    feed = Feed("questions", 7, read_picture=Read())
    whole, first, second = Listener(feed), Listener(feed), Listener(feed)
    options = {"limit_val_batches": 0}
    trainer(tmp_path, max_steps=9, **options).fit(whole, datamodule=pictured(num_workers=num_workers))
    cut = trainer(tmp_path, max_steps=4, **options)
    cut.fit(first, datamodule=pictured(num_workers=num_workers))
    cut.save_checkpoint(tmp_path / "cut.ckpt")
    again = trainer(tmp_path, max_steps=9, **options)
    again.fit(second, datamodule=pictured(num_workers=num_workers), ckpt_path=tmp_path / "cut.ckpt", weights_only=True)
    assert len(whole.shown) == 9
    assert first.shown + second.shown == whole.shown
    assert not multiprocessing.active_children()


def test_without_a_limit_an_epoch_shows_every_item_and_the_next_goes_on(pictured, tmp_path):
    module, stage = pictured(), Listener(Feed("questions", 7))
    trainer(tmp_path, max_epochs=2, limit_val_batches=0).fit(stage, datamodule=module)
    assert stage.of("train") == [seen(batch) for batch in module.training_batches(Feed("questions", 7), 12)]


@pytest.mark.parametrize("num_workers", [0, 1])
def test_the_same_questions_are_asked_at_every_validation(pictured, tmp_path, num_workers):
    module = pictured(num_workers=num_workers, val_fraction=0.3, val_questions=8, batch_size=3)
    stage = Listener(Feed("rows", 2, read_picture=Read()))
    trainer(tmp_path, max_steps=4, val_check_interval=2).fit(stage, datamodule=module)
    asked = stage.of("val")
    ids = [e.question_id for e in module.splits["val"]]
    assert [[name for name, _ in batch[1]] for batch in asked[:3]] == [ids[:3], ids[3:6], ids[6:8]]
    assert asked[:3] == asked[3:]
    assert all(batch[2] for batch in asked) == bool(num_workers)


def test_zero_asks_all_and_the_rows_are_those_of_the_questions(pictured):
    few, every = (pictured(val_fraction=0.3, val_questions=n) for n in (2, 0))
    assert every.val_examples() == every.splits["val"]
    assert few.val_examples() == every.splits["val"][:2]
    assert Counter(e.question_id for e, _, _ in few.val_rows(("bayesian",))) == {
        e.question_id: 2 for e in few.val_examples()
    }


def test_a_set_without_a_validation_split_is_not_validated(pictured, tmp_path):
    stage = Listener(Feed("rows", 2))
    trainer(tmp_path, max_steps=2).fit(stage, datamodule=pictured(val_fraction=0))
    assert stage.of("val") == []
    assert len(stage.of("train")) == 2


def test_the_whole_test_split_is_asked_once(pictured, tmp_path):
    module, stage = pictured(batch_size=4), Listener(Feed("rows", 2))
    trainer(tmp_path).test(stage, datamodule=module, verbose=False)
    assert [name for batch in stage.of("test") for name, _ in batch[1]] == [
        e.question_id for e in module.splits["test"]
    ]


@pytest.mark.parametrize(("n", "size", "ranks"), [(10, 4, 1), (10, 4, 3), (7, 2, 4), (5, 8, 2), (1, 2, 2), (0, 2, 2)])
def test_devices_examine_every_question_once_without_padding(n, size, ranks):
    questions = [Example(f"p{i}", (), "?", ("a", "b"), "a", f"q{i}") for i in range(n)]
    shares = [question_batches(questions, size, Share(rank, ranks)) for rank in range(ranks)]
    for rank, share in enumerate(shares):
        assert [e for batch in share for e in batch.examples] == questions[rank::ranks]
        assert all(len(batch) <= -(-size // ranks) for batch in share)
        assert [batch.step for batch in share] == list(range(len(share)))
        assert len(share) == len(shares[0])  # they go on together after the last one


def test_the_loaders_ask_the_trainer_which_device_they_serve(pictured, monkeypatch):
    class Two:
        max_steps, global_rank, world_size = 5, 1, 2
        lightning_module = Listener(Feed("questions", 6))

    module = pictured(val_fraction=0.3, val_questions=5, batch_size=4)
    module.trainer = Two()
    whole = module.training_batches(Feed("questions", 6), 10)
    assert [named(batch) for batch in module.train_dataloader()] == [named(batch)[1::2] for batch in whole]
    assert [e for batch in module.val_dataloader() for e in batch.examples] == list(module.splits["val"][1:5:2])
    assert [e for batch in module.test_dataloader() for e in batch.examples] == list(module.splits["test"][1::2])
    Two.world_size, Two.global_rank = 6, 5  # of five questions the sixth device has none, in a batch of its own
    assert [batch.examples for batch in module.val_dataloader()] == [()]


@pytest.mark.parametrize("bad", [{"num_workers": -1}, {"val_questions": -1}])
def test_numbers_below_nothing_are_refused(bad):
    with pytest.raises(ValueError, match="must be at least 0, got -1"):
        Made.Config(**bad)


def test_a_batch_of_any_step_can_be_asked_for():
    batch_of = TrainingSteps(list("abcde"), lambda items: Batch(tuple(items)), EndlessOrder(5, 2, 0))
    loader = TrainingBatches(batch_of, 6)
    assert [batch.examples for batch in loader] == [batch_of(step).examples for step in range(6)]
    assert collate_questions(["a"]).examples == ("a",)
