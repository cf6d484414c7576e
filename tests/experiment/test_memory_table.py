"""Reference: the estimate itself at the settings that are proposed.

Run: pytest tests/experiment/test_memory_table.py.
"""

import json
import re
from itertools import pairwise

import pytest
import torch

from configs.load import load
from datamodules.batch import load_image
from experiment import memory_table
from experiment.memory_of_run import MemoryOfRun
from experiment.memory_table import GIB, OVERHEAD
from experiment.ranks import acting_ranks, held_ranks
from experiment.run import assemble
from lightning_modules.policy import Policy
from lightning_modules.row_cache import RowCache

FEW_ROWS = "module.init_args.engine=" + json.dumps(
    {"class_path": "lightning_modules.engines.packed.Packed", "init_args": {"rows_at_once": 3}}
)


@pytest.fixture
def run_of(based):
    def made(name, *overrides, run="alpha", runs=based.runs):
        files = str(based.files / f"{name}.yaml")
        return MemoryOfRun(assemble(load(files, [f"runs_dir={runs}", *overrides])), run)

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


def test_the_largest_picture_is_counted_while_gradients_are_held(run_of):
    run = run_of("dsa")
    pictures = [run.family.preprocess(load_image(source)) for _, one in run.looked_at for source in one.images]
    assert run.picture.n_tokens == max(picture.n_tokens for picture in pictures)
    assert run.parts(run.asked)["picture tower"] == run.shaped(False).seeing > 0
    shaped, before = run.shaped(False), run.need(run.asked)
    run._needs.clear()
    shaped.seeing += shaped.activations(run.piece(run.asked), checkpoint_layers=False)
    lasting = shaped.weights + shaped.adapters + shaped.moments("adamw")
    assert run.need(run.asked) == lasting + shaped.gradients + shaped.seeing > before


def test_only_settings_that_the_stage_has_are_proposed(run_of):
    run = run_of("dsa")
    assert run.decoding(run.asked) is None
    written = [settings.written(run.asked) for settings in run.remedies()]
    assert any("micro_batch_tokens" in text for text in written)
    assert not any("rows_at_once" in text for text in written)


def test_under_fsdp2_rollouts_need_the_base_whole(run_of):
    parts = ("trainer.devices=2", "trainer.accelerator=cpu", "trainer.strategy=fsdp2", "model.init_args.layers=5")
    run, whole = run_of("gba", *parts), run_of("gba", *parts[:2], *parts[3:])
    shaped, needs = run.shaped(False), run.parts(run.asked)
    assert needs["weights"] == shaped.weights_on(2)
    assert needs["rollouts"] - whole.parts(whole.asked)["rollouts"] == shaped.gathered == 3 * shaped.blocks[0]


def test_teachers_are_held_and_the_student_has_the_rank_of_its_start(run_of, lineage, tmp_path):
    own = {"module.init_args.start=''": 9, "module.init_args.start=ties": 8}  # the merge takes the sum of 2 · 2 · 2
    for start, rank in own.items():
        run = run_of("integrate", start, "module.init_args.lora_rank=9", run="agent", runs=lineage.runs)
        assert acting_ranks(run.context, "agent") == [rank]
        assert held_ranks(run.context) == [2, 2, 2, 2]  # DSA and GBA of two specialties
    still = run_of("integrate", run="agent")  # nothing is trained, or merged
    assert acting_ranks(still.context, "agent") == [8]
    smaller = run_of("integrate", "gba:callbacks.merge.init_args.rank=5", run="agent")
    assert acting_ranks(smaller.context, "agent") == [5]
    assert acting_ranks(run_of("gba").context, "alpha") == [2, 2]
    assert acting_ranks(run_of("joint_rl", run="agent").context, "agent") == [2, 2]
    shaped = still.shaped(False)
    assert len([name for name, _ in shaped.policy.family.named_parameters() if ".lora_A." in name]) == 5 * 2 * 7
    assert sum(p.numel() for p in shaped.trained) == shaped.adapters // 4 // 2  # 8 of 8 + 4 · 2


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("integrate", ()),
        ("integrate", ("module.init_args.rollouts_per_question=2", "module.init_args.micro_batch_tokens=300")),
        ("integrate", ("module.init_args.gate=right", FEW_ROWS)),
        ("joint", ()),
    ],
)
def test_no_step_of_an_agent_runs_on_more_than_its_estimated_piece(
    run_of, lineage, tmp_path, monkeypatch, name, settings
):
    run, seen, decoded = run_of(name, *settings, run="agent", runs=lineage.runs), [], []
    states, cache = Policy.completion_states, RowCache.__init__

    def watched(policy, prompts, completions):
        found = states(policy, prompts, completions)
        if torch.is_grad_enabled():
            seen.append((found.tokens, len(prompts)))
        return found

    def kept(self, packing, rows, steps):
        cache(self, packing, rows, steps)
        decoded.append(len(rows))

    monkeypatch.setattr(Policy, "completion_states", watched)
    monkeypatch.setattr(RowCache, "__init__", kept)
    made = lineage.copy(tmp_path / "runs")
    assert made.run(name, *settings, "fit.val_every=0", "callbacks.evaluate=null", "callbacks.cards=null") == 0
    piece, most = run.piece(run.asked), max(seen)
    assert most[0] <= piece.tokens
    if "module.init_args.gate=right" not in settings:  # which leaves rows out; and answers end before their limit
        assert most[0] >= 0.5 * piece.tokens
        assert max(rows for _, rows in seen) == piece.rows
    if name == "integrate":
        assert max(decoded) == run.decoding(run.asked).rows


@pytest.mark.parametrize(("name", "run"), [("dsa", "alpha"), ("gba", "alpha"), ("integrate", "agent")])
def test_several_devices_share_a_step_out(run_of, name, run):
    one, four = (
        run_of(name, f"trainer.devices={n}", "trainer.accelerator=cpu", "data.batch_size=8", run=run) for n in (1, 4)
    )
    assert four.questions == {"dsa": 2, "gba": 1, "integrate": 1}[name]
    assert four.piece(four.asked).rows * {"dsa": 4, "gba": 2, "integrate": 2}[name] == one.piece(one.asked).rows
    sent = [found.parts(found.asked)["gradients to send"] for found in (one, four)]
    assert sent == [0, sum(p.nbytes for p in four.shaped(False).trained)]


def test_a_dry_run_tells_the_memory_of_an_agent(lineage, capsys):
    assert lineage.run("integrate", "trainer.max_steps=1", "--dry-run") == 0
    told = capsys.readouterr().out
    assert re.search(r"memory, GiB: weights 0\.00, .*in micro-batches of \d+ tokens; \d+ rollouts at once", told)
