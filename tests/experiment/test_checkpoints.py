"""Reference: the bytes that were written. Run: pytest tests/experiment/test_checkpoints.py."""

import errno
import os
import random
from pathlib import Path

import pytest
import torch

from artifacts.checkpoints import Checkpoints, before
from artifacts.manifest import DamagedError, beside


def state(seed: int) -> dict:
    """Weights, an optimiser's moments and counters."""
    generator = torch.Generator().manual_seed(seed)
    weights = {name: torch.randn(40, 9, generator=generator) for name in "ab"}
    return {"state_dict": weights, "optimizer_states": [{"lr": 0.1, "exp_avg": weights["a"] * 2}], "batches_done": seed}


def same(first: dict, second: dict) -> bool:
    pairs = zip(first["state_dict"].values(), second["state_dict"].values(), strict=True)
    return first["batches_done"] == second["batches_done"] and all(torch.equal(a, b) for a, b in pairs)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "checkpoints" / "last.ckpt"


def test_what_was_saved_is_loaded_and_the_one_before_is_kept(path):
    for seed in (1, 2, 3):
        Checkpoints().save_checkpoint(state(seed), path)
    assert same(Checkpoints().load_checkpoint(path), state(3))
    assert same(Checkpoints().load_checkpoint(before(path)), state(2))
    names = {"last.ckpt", "last.ckpt.manifest.json", "last.ckpt.before", "last.ckpt.before.manifest.json"}
    assert {file.name for file in path.parent.iterdir()} == names
    Checkpoints().remove_checkpoint(path)
    assert not list(path.parent.iterdir())


def test_only_the_last_checkpoint_has_one_before(path):
    best = path.with_name("best-2.ckpt")
    for seed in (1, 2):  # a run that goes on from before its best step writes that again
        Checkpoints().save_checkpoint(state(seed), best)
    assert {file.name for file in path.parent.iterdir()} == {"best-2.ckpt", "best-2.ckpt.manifest.json"}
    assert same(Checkpoints().load_checkpoint(best), state(2))


def test_every_flipped_bit_is_refused_by_name(path):
    for seed in (1, 2):
        Checkpoints().save_checkpoint(state(seed), path)
    whole, draw = path.read_bytes(), random.Random(0)
    for _ in range(200):
        spoilt, place = bytearray(whole), draw.randrange(len(whole))
        spoilt[place] ^= 1 << draw.randrange(8)
        path.write_bytes(spoilt)
        with pytest.raises(DamagedError, match=r"last\.ckpt: is damaged") as refused:
            Checkpoints().load_checkpoint(path)
    assert f"mv {before(path)} {path}" in str(refused.value)
    path.write_bytes(whole)
    assert same(Checkpoints().load_checkpoint(path), state(2))


@pytest.mark.parametrize("record", ["", "[{", "[]", "{}", '{"files": {}}', '{"files": {"last.ckpt": {"bytes": 1}}}'])
def test_a_checkpoint_without_its_record_is_refused(path, record):
    Checkpoints().save_checkpoint(state(1), path)
    beside(path).unlink()
    if record:
        beside(path).write_text(record)
    with pytest.raises(DamagedError, match=r"last\.ckpt"):
        Checkpoints().load_checkpoint(path)


def test_the_way_out_that_a_refusal_names_works(path):
    for seed in (1, 2):
        Checkpoints().save_checkpoint(state(seed), path)
    path.write_bytes(b"PK")
    with pytest.raises(DamagedError, match="mv ") as refused:
        Checkpoints().load_checkpoint(path)
    assert os.system(str(refused.value).partition("before it: ")[2]) == 0
    assert same(Checkpoints().load_checkpoint(path), state(1))


def test_a_damaged_checkpoint_is_not_kept_as_a_good_one(path):
    for seed in (1, 2):
        Checkpoints().save_checkpoint(state(seed), path)
    path.write_bytes(path.read_bytes()[:-9])
    Checkpoints().save_checkpoint(state(3), path)
    with pytest.raises(DamagedError):
        Checkpoints().load_checkpoint(before(path))


@pytest.mark.parametrize("call", range(12))
def test_killed_at_any_moment_a_whole_checkpoint_is_left(path, monkeypatch, call):
    # A kill is the end of everything: no clean-up runs, so that what stands between two calls is what is found.
    class Killed(BaseException):
        pass

    for seed in (1, 2):
        Checkpoints().save_checkpoint(state(seed), path)
    calls = []

    def counted(function):
        def run(*args, **kwargs):
            if len(calls) >= call:
                raise Killed
            calls.append(function)
            return function(*args, **kwargs)

        return run

    with monkeypatch.context() as patch:
        for owner, name in ((os, "replace"), (os, "link"), (os, "fsync")):
            patch.setattr(owner, name, counted(getattr(owner, name)))
        patch.setattr(Path, "unlink", lambda *_, **__: None)
        try:
            Checkpoints().save_checkpoint(state(3), path)
        except Killed:
            pass
    found = Checkpoints().load_checkpoint(path)
    assert same(found, state(2)) or same(found, state(3))
    Checkpoints().save_checkpoint(state(4), path)
    assert same(Checkpoints().load_checkpoint(path), state(4))


@pytest.mark.parametrize("where", ["write", "fsync"])
def test_a_full_disk_leaves_the_old_checkpoint(path, monkeypatch, where):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    Checkpoints().save_checkpoint(state(1), path)
    with monkeypatch.context() as patch:
        patch.setattr("artifacts.checkpoints._Measured.write" if where == "write" else "os.fsync", full)
        with pytest.raises((OSError, RuntimeError), match=r"No space|unexpected pos"):
            Checkpoints().save_checkpoint(state(2), path)
    assert same(Checkpoints().load_checkpoint(path), state(1))
    assert {file.name for file in path.parent.iterdir()} == {"last.ckpt", "last.ckpt.manifest.json"}


def test_a_real_full_disk_is_named(path, monkeypatch):
    class Full:
        def write(self, data):
            raise OSError(errno.ENOSPC, "No space left on device")

        def flush(self):
            pass

    from artifacts import checkpoints

    with pytest.raises(OSError, match=r"No space left on device.*last\.ckpt"):
        checkpoints._written(state(1), Full(), path)


def test_code_in_a_checkpoint_is_not_run(path):
    class Evil:
        def __reduce__(self):
            return os.system, ("touch /tmp/evil",)

    Checkpoints().save_checkpoint({"x": Evil()}, path)
    with pytest.raises(Exception, match=r"weights_only|Weights only"):
        Checkpoints().load_checkpoint(path)
