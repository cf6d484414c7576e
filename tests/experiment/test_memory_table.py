"""Reference: the estimate itself at the settings that are proposed.

Run: pytest tests/experiment/test_memory_table.py.
"""

import re
from itertools import pairwise

import pytest

from configs.load import load
from experiment import memory_table
from experiment.memory_table import GIB, OVERHEAD, MemoryOfRun
from experiment.run import assemble


@pytest.fixture
def run_of(based):
    def made(name, *overrides):
        files = str(based.files / f"{name}.yaml")
        return MemoryOfRun(assemble(load(files, [f"runs_dir={based.runs}", *overrides])), "alpha")

    return made


def test_the_settings_that_are_proposed_fit_and_those_before_them_do_not(run_of):
    run = run_of("gba")
    tried = [run.asked, *run.remedies()]
    needs = [run.need(settings) for settings in tried]
    assert needs[0] == max(needs)
    for room in {*needs, min(needs) - 1, *((a + b) // 2 for a, b in pairwise(needs))}:
        found = run.fitting(room)
        fits = [settings for settings, need in zip(tried, needs, strict=True) if need <= room]
        assert found == (fits[0] if fits else None)
    assert tried[1].written(run.asked) == "module.init_args.checkpoint_layers=true"


def test_a_dry_run_tells_every_card_and_refuses_what_cannot_fit(based, capsys, monkeypatch):
    assert based.run("dsa", "--dry-run") == 0
    told = capsys.readouterr().out
    assert re.search(r"memory, GiB: weights 0\.00, .*at most 0\.\d\d at a time, in micro-batches of \d+ tokens", told)
    assert re.search(r"fits: .+ yes; 24 GiB yes; 40 GiB yes; 80 GiB yes; 141 GiB yes", told)
    run = MemoryOfRun(assemble(load(str(based.files / "dsa.yaml"), [f"runs_dir={based.runs}"])), "alpha")
    little = run.need(next(iter(run.remedies()))) + OVERHEAD
    monkeypatch.setattr(memory_table, "own_device", lambda context: ("a small card", little))
    monkeypatch.setattr("experiment.dry_run.rehearse", None)  # refused before the weights are loaded
    assert based.run("dsa", "--dry-run") == 2
    error = capsys.readouterr().err
    assert f"a small card has {little / GIB:.1f}: set module.init_args.checkpoint_layers=true" in error
    monkeypatch.setattr(memory_table, "own_device", lambda context: ("a smaller card", OVERHEAD))
    assert based.run("dsa", "--dry-run") == 2
    assert "no setting makes it fit; take a smaller model" in capsys.readouterr().err


def test_pieces_hold_what_a_step_has(run_of):
    run = run_of("gba")
    piece, decoding = run.piece(run.asked), run.decoding(run.asked)
    assert piece.tokens <= run.asked.micro_batch_tokens
    group = piece.rows // piece.prompts
    assert decoding.rows == min(run.asked.rows_at_once, group * run.config.questions_per_step)
    assert run.shaped(False).cache_bytes_per_token() == 2 * 2 * 64 * 4  # two layers of 64 numbers, keys and values


def test_only_settings_that_the_stage_has_are_proposed(run_of):
    run = run_of("dsa")
    assert run.decoding(run.asked) is None
    written = [settings.written(run.asked) for settings in run.remedies()]
    assert any("micro_batch_tokens" in text for text in written)
    assert not any("rows_at_once" in text for text in written)


def test_under_fsdp2_rollouts_need_the_base_whole(run_of):
    parts = ("trainer.devices=2", "trainer.accelerator=cpu", "trainer.strategy=fsdp2", "model.init_args.layers=5")
    run, whole = run_of("gba", *parts), run_of("gba", *parts[3:])
    shaped, needs = run.shaped(False), run.parts(run.asked)
    assert needs["weights"] == shaped.weights_on(2)
    assert needs["rollouts"] - whole.parts(whole.asked)["rollouts"] == shaped.gathered == 3 * shaped.blocks[0]
