"""Reference: the finished lineage's own bytes. Damage, kills and disks that refuse, then the same command once more.

Run: pytest tests/experiment/test_disk.py.
"""

import errno
import fcntl
import json
import os
import random
import resource
import shutil

import pytest
import torch

from artifacts.adapter_files import read_manifest
from callbacks.resume_point import ResumePoint
from configs.load import load
from experiment.run import assemble
from tests.experiment.conftest import contents
from tests.experiment.test_resume import cards, curves

ALPHA = "only=[alpha]"


def swap_two_ids(path):
    """Two words of a tokenizer change places."""
    tokenizer = json.loads(path.read_text())
    vocabulary = tokenizer["model"]["vocab"]
    one, other = list(vocabulary)[-2:]
    vocabulary[one], vocabulary[other] = vocabulary[other], vocabulary[one]
    path.write_text(json.dumps(tokenizer))


def flip(path, draw):
    content = bytearray(path.read_bytes())
    content[draw.randrange(len(content))] ^= 1 << draw.randrange(8)
    path.write_bytes(content)


@pytest.mark.parametrize("seed", [0, pytest.param(1, marks=pytest.mark.slow), pytest.param(2, marks=pytest.mark.slow)])
def test_whatever_is_damaged_is_named_and_nothing_is_made_anew_by_stealth(lineage, tmp_path, capsys, seed):
    draw, other = random.Random(seed), lineage.copy(tmp_path / "runs")
    patterns = [
        *("base/mixed/base/model.safetensors", "base/mixed/base/tokenizer*.json", "dsa/*/adapter/adapter_*"),
        *("gba/*/adapter/adapter_*", "gba/merged/*/adapter/*", "gba/merged/*/[cRr]*.*", "gba/merged/*/events*"),
        *("gba/evaluation/cells/*.jsonl", "gba/evaluation/*.*[svd]", "gba/evaluation/events*"),
    ]
    before = contents(other.runs)
    for pattern in patterns if seed else draw.sample(patterns, 4):
        victim = draw.choice(sorted(other.runs.glob(pattern)))
        whole = victim.read_bytes()
        flip(victim, draw)
        assert other.run("gba") == 1, victim
        error = capsys.readouterr().err.strip()
        assert str(victim) in error, error
        assert "delete " in error
        assert len(error.splitlines()) == 1
        victim.write_bytes(whole)
    after = contents(other.runs)
    for name in before:
        if "status.json" not in name:
            assert after[name][1] == before[name][1], name
    assert other.run("gba") == 0


def test_two_ids_swapped_in_a_tokenizer_train_nothing(based, tmp_path, capsys):
    other = based.copy(tmp_path / "runs")
    path = other.runs / "base/mixed/base/tokenizer.json"
    swap_two_ids(path)
    assert other.run("dsa", ALPHA) == 1
    error = capsys.readouterr().err
    assert f"{path}: is damaged" in error
    assert f"delete {path.parent}" in error
    assert not list((other.runs / "dsa").glob("*/adapter"))


def test_a_file_that_a_base_would_be_read_with_is_refused(based, tmp_path, capsys):
    other = based.copy(tmp_path / "runs")
    strange = other.runs / "base/mixed/base/chat_template.jinja"
    strange.write_text("{{ messages }}")
    assert other.run("dsa", ALPHA) == 1
    assert f"{strange}: no file of this base" in capsys.readouterr().err


def test_a_kill_behind_the_last_checkpoint_loses_no_point_and_no_time(lineage, tmp_path, monkeypatch):
    def killed(*_, **__):
        raise KeyboardInterrupt

    other = lineage.copy(tmp_path / "runs").without("dsa/alpha", "gba")
    run, whole = other.runs / "dsa/alpha", lineage.runs / "dsa/alpha"
    with monkeypatch.context() as patch:
        patch.setattr("experiment.fit.save_result", killed)
        assert other.run("dsa") == 130
    (run / "timings.json").unlink()
    assert other.run("dsa") == 0
    assert curves(run) == curves(whole)
    assert cards(run) == cards(whole)
    times = json.loads((run / "timings.json").read_text())
    assert times["batches"] == 2
    assert times["time/backward_s"] > 0


def test_times_are_added_up_over_interruptions(lineage, tmp_path, monkeypatch):
    class Stops(ResumePoint):
        def save(self, trainer):
            super().save(trainer)
            if trainer.global_step == 1:
                raise KeyboardInterrupt

    other = lineage.copy(tmp_path / "runs").without("dsa/alpha", "gba")
    with monkeypatch.context() as patch:
        patch.setattr("experiment.fit.ResumePoint", lambda path, *_: Stops(path, 1, 10.0))
        assert other.run("dsa") == 130
    first = torch.load(other.runs / "dsa/alpha/checkpoints/last.ckpt")["callbacks"]["PhaseTimes"]
    assert other.run("dsa") == 0
    times = json.loads((other.runs / "dsa/alpha/timings.json").read_text())
    assert (first["batches"], times["batches"]) == (1, 2)
    assert times["time/forward_s"] > first["seconds"]["forward"]


def test_a_fresh_start_sets_aside_what_was_drawn_before(lineage, tmp_path):
    other = lineage.copy(tmp_path / "runs").without("dsa/alpha/adapter", "dsa/alpha/checkpoints", "gba")
    run = other.runs / "dsa/alpha"
    old = sorted(path.name for path in run.glob("events*"))
    assert other.run("dsa") == 0
    assert curves(run) == curves(lineage.runs / "dsa/alpha")
    aside = sorted(path.name for path in (run / "earlier").iterdir())
    assert [name.replace("set_aside", "tfevents") for name in aside] == old
    assert not [name for name in aside if "tfevents" in name]


@pytest.mark.parametrize("part", ["merged/ties", "evaluation", "layout"])
def test_a_board_that_was_not_finished_is_drawn_again(lineage, tmp_path, monkeypatch, part):
    def killed(*_, **__):
        raise KeyboardInterrupt

    gone = {"merged/ties": "gba/merged/ties/board.manifest.json", "evaluation": "gba/evaluation/board.manifest.json"}
    gone |= {"layout": "gba/layout"}
    other = lineage.copy(tmp_path / "runs").without(gone[part], *(["gba/alpha"] if part == "layout" else []))
    with monkeypatch.context() as patch:
        method = {"merged/ties": "add_text", "evaluation": "add_figure", "layout": "add_custom_scalars"}[part]
        patch.setattr(f"torch.utils.tensorboard.SummaryWriter.{method}", killed)
        assert other.run("gba") == 130
    assert not (other.runs / "gba" / part / "board.manifest.json").exists()
    assert other.run("gba") == 0
    assert curves(other.runs / "gba" / part) == curves(lineage.runs / "gba" / part)
    assert cards(other.runs / "gba" / part).keys() == cards(lineage.runs / "gba" / part).keys()
    assert len(list((other.runs / "gba" / part).glob("events*"))) == 1
    assert not list(other.runs.rglob("*.tmp"))


@pytest.mark.parametrize(
    "content",
    ["", "{", "[]", "null", "7", '{"trainer": 5}', '{"model": {}, "specialties": {}, "fit": 5}', "\0\0", "[" * 9999],
)
def test_garbage_in_the_settings_is_named_with_the_remedy(lineage, tmp_path, capsys, content):
    other = lineage.copy(tmp_path / "runs")
    file = other.runs / "dsa/experiment.json"
    file.write_text(content)
    assert other.run("gba") == 2
    error = capsys.readouterr().err.strip()
    assert error.startswith(f"{file}: ")
    assert "overwrite=true" in error
    assert len(error.splitlines()) == 1
    if not content:
        shutil.copy(other.runs / "dsa/alpha/config.resolved.json", file)  # the remedy
        assert other.run("gba") == 0


@pytest.mark.parametrize(
    "overrides", [["threads=2"], ["workers=3"], ["data.num_workers=1"], ["trainer.profiler=simple"]]
)
def test_what_changes_no_number_is_no_other_experiment(lineage, tmp_path, monkeypatch, overrides):
    def training(*_):
        raise AssertionError("trained although everything was finished")

    other = lineage.copy(tmp_path / "runs")
    before = contents(other.runs)
    monkeypatch.setattr("experiment.fit._fit", training)
    assert other.run("gba", *overrides) == 0
    torch.set_num_threads(1)
    assert contents(other.runs) == before


def test_cells_are_shared_by_content_and_not_by_when_they_were_made(lineage, tmp_path):
    other = lineage.copy(tmp_path / "runs")

    def key():
        return assemble(load(other.files / "gba.yaml", [f"runs_dir={other.runs}"])).base_key

    before = key()
    file = other.runs / "base/mixed/base/manifest.json"
    manifest = json.loads(file.read_text())
    file.write_text(
        json.dumps(manifest | {"metrics": {"speed": 7.0}, "git": {"commit": "0"}, "extra": {"time": "now"}})
    )
    assert key() == before
    manifest["files"]["tokenizer.json"]["sha256"] = "0" * 64
    file.write_text(json.dumps(manifest))
    assert key() != before


def test_an_adapter_at_another_scale_has_other_cells(lineage, tmp_path):
    from artifacts.adapter_files import acting_sha256

    adapter = tmp_path / "adapter"
    shutil.copytree(lineage.runs / "dsa/alpha/adapter", adapter)
    before, config = acting_sha256(adapter), json.loads((adapter / "adapter_config.json").read_text())
    (adapter / "adapter_config.json").write_text(json.dumps(config | {"base_model_name_or_path": "/elsewhere"}))
    assert acting_sha256(adapter) == before
    (adapter / "adapter_config.json").write_text(json.dumps(config | {"lora_alpha": 64}))
    assert acting_sha256(adapter) != before


def test_a_finished_experiment_on_a_read_only_disk_is_read_without_a_lock(lineage, tmp_path, monkeypatch):
    def refused(*arguments, **_):
        raise OSError(errno.EROFS, "Read-only file system", str(arguments[0]))

    def reading(path, mode="r", *arguments, **named):
        return (
            refused(path)
            if {*mode} & {*"wax+"} and str(path).startswith(str(other.runs))
            else real(path, mode, *arguments, **named)
        )

    other, real = lineage.copy(tmp_path / "runs"), open
    for lock in other.runs.rglob(".lock"):
        lock.unlink()
    before = contents(other.runs)
    monkeypatch.setattr("builtins.open", reading)
    monkeypatch.setattr("io.open", reading)
    for name in ("replace", "rename", "unlink", "rmdir"):
        monkeypatch.setattr(os, name, refused)
    monkeypatch.setattr(fcntl, "flock", refused)
    assert other.run("gba") == 0
    assert contents(other.runs) == before
    assert not list(other.runs.rglob(".lock"))


def test_a_disk_without_locks_ends_in_one_line(based, tmp_path, monkeypatch, capsys):
    def flock(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", flock)
    other = based.copy(tmp_path / "runs")
    assert other.run("dsa", ALPHA) == 1
    error = capsys.readouterr().err.strip()
    assert "set runs_dir to a folder on another one" in error
    assert str(other.runs / "dsa/.lock") in error
    assert len(error.splitlines()) == 1


def test_a_run_folder_that_is_removed_in_mid_run_ends_in_one_line(based, tmp_path, monkeypatch, capsys):
    class Removes(ResumePoint):
        def save(self, trainer):
            shutil.rmtree(self.path.parents[1])
            self.path.parents[1].write_text("somebody else's")
            super().save(trainer)

    monkeypatch.setattr("experiment.fit.ResumePoint", lambda path, *_: Removes(path, 1, 10.0))
    other = based.copy(tmp_path / "runs")
    assert other.run("dsa", ALPHA) == 1
    error = capsys.readouterr().err.strip()
    assert str(other.runs / "dsa/alpha") in error
    assert len(error.splitlines()) == 1


def test_another_tokenizer_than_a_run_was_begun_with_is_refused(lineage, tmp_path, capsys):
    other = lineage.copy(tmp_path / "runs").without("dsa/alpha/adapter", "gba")
    facts = json.loads((other.runs / "dsa/alpha/provenance.json").read_text())
    assert facts["tokenizer_sha256"] == read_manifest(lineage.runs / "dsa/alpha/adapter")["extra"]["tokenizer_sha256"]
    (other.runs / "dsa/alpha/provenance.json").write_text(json.dumps(facts | {"tokenizer_sha256": "0" * 64}))
    assert other.run("dsa") == 1
    assert "was its tokenizer.json changed?" in capsys.readouterr().err


@pytest.mark.parametrize("kib", [1, 7])
def test_a_disk_that_takes_no_more_ends_in_one_line_and_the_same_command_goes_on(based, tmp_path, capsys, kib):
    # The kernel itself refuses every write beyond the limit, as it does on a full disk.
    other, (soft, hard) = based.copy(tmp_path / "runs"), resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (kib * 1024, hard))
    try:
        code = other.run("dsa", ALPHA)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    error = capsys.readouterr().err.strip()
    assert code == 1, error
    assert str(other.runs) in error, error
    assert "ulimit -f" in error
    assert len(error.splitlines()) == 1, error
    assert not list(other.runs.rglob("*.tmp"))
    assert other.run("dsa", ALPHA) == 0
    assert not read_manifest(other.runs / "dsa/alpha/adapter")["extra"]["continuations"]
