"""Reference: the run itself: what it would raise, and what it writes. Run: pytest tests/experiment/test_dry_run.py."""

import re
from threading import Thread

import pytest

from tests.experiment.conftest import contents


def fail(*_):
    raise IndexError("nothing at 7")


def test_every_stage_takes_a_step_and_nothing_is_written(machine, tmp_path, monkeypatch, capsys):
    from lightning_modules.base_training import BaseTraining
    from lightning_modules.rl_gba import GBA
    from lightning_modules.sft_lora import SFTLoRA

    def counted(stage):
        original = stage.training_step

        def step(self, batch, batch_idx):
            taken.append((stage.__name__, self.policy.active))
            return original(self, batch, batch_idx)

        return step

    taken = []
    for stage in (BaseTraining, SFTLoRA, GBA):
        monkeypatch.setattr(stage, "training_step", counted(stage))
    monkeypatch.chdir(tmp_path)
    assert machine.at(tmp_path / "runs").run("gba", "--dry-run", f"feature_cache={tmp_path / 'features'}") == 0
    assert list(tmp_path.iterdir()) == []
    # What is not trained yet is stood in for: GBA learns on top of a fresh expert.
    assert set(taken) == {("BaseTraining", ()), ("SFTLoRA", ("dsa",)), ("GBA", ("dsa", "gba"))}
    told = capsys.readouterr().out
    assert "s on alpha, with a fresh base and a fresh dsa" in told
    assert "training: 40 steps to do, about" in told  # the base
    assert told.count("training: 4 steps to do, about") == 2  # two specialties of two steps each
    # base, two DSA experts, two GBA experts, two merges to come; 4 questions of each of two specialties
    assert "matrix: 7 models, 56 answers" in told
    assert "alpha: 4 questions of 4 patients; smallest visible difference between two models, in points: none" in told
    assert re.search(r"in all about \d+ s here", told)


def test_a_dry_run_refuses_an_overlap_between_specialties_as_the_run_would(machine, tmp_path, monkeypatch, capsys):
    from datamodules.check.overlap import Overlap

    def overlaps(audits):
        if len(audits) == 1:
            return []
        first, second = (one.name for one in audits)
        return [Overlap("image", f"{first}/train", f"{second}/test", 1, (("p1", "p2"),))]

    monkeypatch.setattr("datamodules.check.quick.overlaps", overlaps)
    told = []
    for asked in (["--dry-run"], []):
        assert machine.at(tmp_path / "runs").run("dsa", *asked) != 0
        told.append(capsys.readouterr().err)
    for error in told:
        assert "what is examined must not be trained on; 1 overlaps" in error
        assert "alpha/train holds a picture of 1 questions of beta/test, such as p1 and p2" in error


def test_the_data_of_the_first_look_are_read_where_nothing_was_made_before(tmp_path):
    from configs.load import load
    from experiment.run import assemble

    context, found = assemble(load("sft_dsa.yaml", [f"runs_dir={tmp_path}"])), []
    thread = Thread(target=lambda: found.append(context.data("pediatrics").splits), daemon=True)
    thread.start()
    thread.join(120)  # the model's tokenizer is made meanwhile, of other sets' texts
    assert found
    assert len(found[0]["train"]) == 1332


def test_of_a_finished_lineage_nothing_is_left_to_train(lineage, monkeypatch, capsys):
    before = contents(lineage.runs)
    monkeypatch.setattr("lightning_modules.sft_lora.SFTLoRA.training_step", fail)
    assert lineage.run("gba", "--dry-run") == 0
    told = capsys.readouterr().out
    assert "alpha (finished)" in told
    assert "one step" not in told
    assert contents(lineage.runs) == before


def test_a_finished_foundation_is_used_and_steps_that_are_done_are_not_counted(lineage, tmp_path, capsys):
    other = lineage.copy(tmp_path / "runs").without("gba")
    before = contents(other.runs)
    assert other.run("gba", "--dry-run", "workers=2") == 0
    told = capsys.readouterr().out
    assert "s on alpha\n" in told
    assert "fresh" not in told
    assert "training: 4 steps to do in 2 workers" in told
    assert other.run("dsa", "--dry-run", "trainer.max_steps=5") == 0
    assert "training: 6 steps to do" in capsys.readouterr().out  # 5 - 2 for each of two
    assert contents(other.runs) == before


def test_a_module_that_fails_in_its_first_step_is_told(based, monkeypatch):
    monkeypatch.setattr("lightning_modules.sft_lora.SFTLoRA.training_step", fail)
    with pytest.raises(IndexError) as error:
        based.run("dsa", "--dry-run")
    assert error.value.__notes__ == ["in the dry run of dsa/alpha"]


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("trainer.accelerator=abacus", "abacus"),
        ("trainer.profiler=slow", "profiler"),
        ("trainer.devices=0", "devices"),
        ("trainer.strategy=nosuch", "nosuch"),
    ],
)
def test_an_argument_that_lightning_refuses_is_told(based, capsys, override, message):
    assert based.run("dsa", override, "--dry-run") == 1
    error = capsys.readouterr().err
    assert message in error
    assert "in the dry run of dsa/alpha" in error


def test_several_devices_are_rehearsed_on_one(based, capsys):
    assert based.run("dsa", "trainer.devices=2", "trainer.accelerator=cpu", "trainer.strategy=ddp", "--dry-run") == 0
    assert "one step" in capsys.readouterr().out


def test_settings_that_the_folder_refuses_are_refused_in_a_dry_run_too(lineage, capsys):
    assert lineage.run("gba", "dsa:module.init_args.learning_rate=0.5", "--dry-run") == 2
    assert "dsa:module.init_args.learning_rate: made with 0.002, asked for is 0.5" in capsys.readouterr().err
