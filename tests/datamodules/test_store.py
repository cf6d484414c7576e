"""Reference: the same examples in a list, and the same set whose rows are all held.

Run: pytest tests/datamodules/test_store.py.
"""

import errno
import gc
import json
import os
import pickle
import random
import tracemalloc
from collections import OrderedDict
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from datamodules import store as stores
from datamodules.batch import Example
from datamodules.check import audit as audits
from datamodules.check.audit import audit
from datamodules.check.overlap import overlaps
from datamodules.check.quick import quick_check
from datamodules.embedded import EmbeddedPicture
from datamodules.hashes import data_sha256
from datamodules.loading import Feed
from datamodules.mmedexpert import MMedExpert
from datamodules.picked import Picked
from datamodules.pictures import Paged
from datamodules.store import Store
from tests.campaigns.rows import lines

WORDS = [
    "lung",
    "é",
    "脳",
    "😀",
    "\ud800",
    "\udc80",
    "\ud83d\ude00"[0],
    "\0",
    "\u2028",
    "\n",
    '"',
    "\\",
    "</think>",
    " ",
]
PICTURE = Image.new("L", (3, 2))


def drawn_picture(drawn):
    path = Path(f"images/{drawn.choice(WORDS)}{drawn.randrange(9)}.png")
    cell = EmbeddedPicture(path, drawn.randrange(3), 4, "image", "ab" * 32, "middle")
    return drawn.choice([path, path, Paged(path, "first"), cell, PICTURE, PICTURE.copy])


def drawn_example(drawn, number):
    def text():
        return "".join(drawn.choices(WORDS, k=drawn.randrange(1, 6))) + "."

    options = tuple(f"{text()}{n}" for n in range(drawn.choice([0, 2, 4])))
    kind = drawn.choice([dict, dict, dict, OrderedDict])
    return Example(
        patient_id=text(),
        images=tuple(drawn_picture(drawn) for _ in range(drawn.randrange(3))),
        question=text(),
        options=options,
        answer=drawn.choice(options) if options else text(),
        question_id=f"{text()}{number}",
        reasoning=kind((f"{text()}{n}", text()) for n in range(drawn.randrange(3))),
        tags={"b": text(), "a": drawn.choice([text(), text(), 3])} if drawn.random() < 0.7 else {},
    )


def kinds(example):
    """What `==` does not tell apart."""
    held = (example.options, example.images, example.reasoning, example.tags)
    order = [list(held[2].items()), list(held[3].items())]
    return [type(one) for one in (*held, *example.images)], order, [s for s in example.images if callable(s)]


@pytest.mark.parametrize("seed", range(40))
def test_what_is_read_back_is_what_was_put_in(seed, monkeypatch):
    drawn = random.Random(seed)
    monkeypatch.setattr(stores, "PIECE", drawn.choice([1, 300, 2**20]))  # every row is written; some; none
    if seed % 2:
        monkeypatch.setattr(stores, "hash", lambda text: len(text) % 3, raising=False)  # most ids share one
    examples = [drawn_example(drawn, number) for number in range(30)]
    held = drawn.choice([0, 1, 7, 30])
    store = Store(held=held)
    assert [store.number_of(e.question_id) or store.add(e) for e in examples] == list(range(30))
    assert [store.number_of(e.question_id) for e in examples] == list(range(30))
    assert store.number_of("none of them") is None
    for order in (list(range(30)), drawn.sample(range(30), 30)):
        for number in order:
            assert store[number] == examples[number]
            assert kinds(store[number]) == kinds(examples[number])
    assert list(store) == examples
    picked = Picked(store.__getitem__, numbers := drawn.sample(range(30), 20))
    for part in (slice(3, 9), slice(None, None, -2), slice(-4, None), slice(0, 0)):
        assert picked[part] == [examples[number] for number in numbers[part]]
        assert picked[part] != examples
    assert (picked[-1], bool(picked[5:5])) == (examples[numbers[-1]], False)
    assert all(store[number] is examples[number] for number in range(held))


def made(count, **changes):
    return [replace(Example("p", (), "wide?", ("yes", "no"), "yes", f"q{n}"), **changes) for n in range(count)]


def test_another_process_has_the_same_rows(monkeypatch):
    monkeypatch.setattr(stores, "PIECE", 200)  # some rows are written, the last ones wait
    store, examples = Store(held=2), made(20)
    for example in examples:
        store.add(example)
    assert store._waiting
    child = os.fork()
    if child == 0:
        os._exit(0 if list(store) == examples else 1)
    assert os.waitpid(child, 0)[1] == 0
    sent = pickle.loads(pickle.dumps(Picked(store.__getitem__, range(20))))
    assert sent == examples


def test_the_file_has_no_name_and_lies_where_there_is_room(tmp_path, monkeypatch):
    monkeypatch.setattr(stores, "PIECE", 1)
    folder, system = tmp_path / ".checked", tmp_path / "system"
    system.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(system))
    for place in (folder, tmp_path / "no" / "such", None):
        store = Store(place, held=0)
        assert [store.add(example) for example in made(3)] == [0, 1, 2]
        assert list(store) == made(3)
        where = os.readlink(f"/proc/self/fd/{store._file.fileno()}")
        assert where.startswith(str(folder if place == folder else system))
        assert [*folder.iterdir(), *system.iterdir()] == []


def test_a_full_disk_is_told_with_its_place(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "pwrite", full)
    monkeypatch.setattr(stores, "PIECE", 1)
    with pytest.raises(OSError, match=r"No space left on device: 'a file of rows in .*checked'") as raised:
        Store(tmp_path / "checked", held=0).add(made(1)[0])
    assert raised.value.errno == errno.ENOSPC


# -- whole sets --------------------------------------------------------------------------------------------------------


def write_set(folder, seed, count=120):
    """Two files with patients in several splits, repeated ids, bad rows, broken lines, long and repeated stems."""
    drawn, found = random.Random(seed), []
    for line in lines(count):
        row = json.loads(line)
        if drawn.random() < 0.4:
            row["split"] = drawn.choice(["train", "val", "test"])
        if drawn.random() < 0.2:
            row["question"] = drawn.choice([" ".join(["word"] * 25), "the same é 😀"])
        if drawn.random() < 0.2:
            row["images"] = [f"{drawn.randrange(6)}.png"]
        if drawn.random() < 0.1:
            row |= drawn.choice([{"id": "row-00000003"}, {"answer": "Z"}, {"reasoning": {"bayesian": "<think>"}}])
        found.append(
            drawn.choice(["{"]) if drawn.random() < 0.04 else json.dumps(row, ensure_ascii=drawn.random() < 0.5)
        )
    for number in range(4):
        PICTURE.save(folder / f"{number}.png")
    (folder / "a.jsonl").write_text("\n".join(found[:70]), encoding="utf-8")
    (folder / "b.jsonl").write_text("\n".join(found[70:]), encoding="utf-8")


def facts(folder, shuffle):
    """All that a run takes of a set."""
    config = MMedExpert.Config(root=str(folder), on_bad_row="skip", shuffle_options=shuffle)
    data = MMedExpert(config, specialty="s")
    splits = {name: list(held) for name, held in data.splits.items()}
    scan, audited = data.scan, audit(data)
    batches = [
        [(batch.examples, batch.completions, batch.spares, batch.ahead) for batch in data.training_batches(feed, 30)]
        for feed in (Feed("rows", 5), Feed("questions", 4, spare=2, ahead=1))
    ]
    return {
        "splits": splits,
        "places": [scan.places[e.question_id] for held in splits.values() for e in held],
        "scan": (scan.faults, scan.left_out, scan.files, scan.rows, len(scan.places), data.statement),
        "hashes": [data_sha256(data, name) for name in splits],
        "check": (audited.splits, audited.problems, audited.doubts, repr(list(audited.items["train"]))),
        "overlaps": overlaps([audited]),
        "rows": list(data.rows()),
        "batches": batches,
    }


@pytest.mark.parametrize("seed", range(3))
def test_a_set_is_the_same_whether_its_rows_are_held_or_read(tmp_path, monkeypatch, seed, capsys):
    write_set(tmp_path, seed)
    shuffle = seed % 2 == 0
    whole, told = facts(tmp_path, shuffle), capsys.readouterr().err
    assert whole["scan"][0]
    assert whole["overlaps"]
    for held in (0, 11):
        monkeypatch.setattr(stores, "HELD", held)
        monkeypatch.setattr(audits, "HELD", held)
        monkeypatch.setattr(stores, "PIECE", 5000)
        found = facts(tmp_path, shuffle)
        for name, expected in whole.items():
            assert found[name] == expected, name
        assert capsys.readouterr().err == told


def test_memory_of_a_row_does_not_grow_with_its_text(tmp_path, monkeypatch):
    monkeypatch.setattr(stores, "HELD", 0)
    monkeypatch.setattr(audits, "HELD", 0)
    monkeypatch.setattr(stores, "PIECE", 4096)

    def run(count):
        (tmp_path / "train.jsonl").write_text("".join(lines(count)), encoding="utf-8")
        tracemalloc.start()
        data = MMedExpert(MMedExpert.Config(root=str(tmp_path)), specialty="s")
        kept = [data.splits, data.rows(), data.training_batches(Feed("rows", 8), 2)]
        quick_check(data)
        data_sha256(data, "train")
        gc.collect()  # also of tuples that Python keeps to use again
        held, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert sum(map(len, kept[0].values())) == count
        return held, most

    def per_row():
        few, many = run(60), run(260)
        return [(more - less) / 200 for less, more in zip(few, many, strict=True)]

    run(60)  # what is loaded once
    held, most = map(min, per_row(), per_row())  # a table of Python's own may grow in one of them
    print(held, most)
    assert held < 300  # bytes a row, of some 2,000 of text
    assert most < 1500
