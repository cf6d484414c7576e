# Reference: the curves of TensorBoard. Run: pytest tests/experiment/test_loggers.py
import csv

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

TRUST = "trust=[made_bars, lightning]"
ONE = ("dsa", "name=logged", "only=[alpha]", "callbacks=null", "trainer.max_steps=2")


def test_a_further_logger_gets_every_curve_and_changes_nothing_else(lineage, tmp_path):
    made = lineage.copy(tmp_path / "runs")
    assert made.run(*ONE, TRUST, "logger=[{class_path: lightning.pytorch.loggers.CSVLogger}]") == 0
    run = made.runs / "logged/alpha"
    with open(run / "logger/logged.alpha/version_0/metrics.csv") as file:
        rows = list(csv.DictReader(file))
    events = EventAccumulator(str(run), size_guidance={"scalars": 0}).Reload()
    drawn = [tag for tag in events.Tags()["scalars"] if tag != "epoch"]
    assert {"train/loss", "val/accuracy/alpha", "work/memory/peak_mib"} <= set(drawn)
    for tag in drawn:
        assert {int(row["step"]) for row in rows if row.get(tag)} == {event.step for event in events.Scalars(tag)}, tag
    losses = {event.step: event.value for event in events.Scalars("train/loss")}
    told = {int(row["step"]): float(row["train/loss"]) for row in rows if row["train/loss"]}
    assert told == pytest.approx(losses, rel=1e-6)
    assert made.run(*ONE, TRUST, "logger=[]") == 0  # which logger looked on is no setting of the result


def test_what_a_logger_refuses_is_one_clear_error_before_anything_trains(lineage, tmp_path, capsys, monkeypatch):
    class StoreError(Exception):
        """As MLflow has one."""

    def refuse(*_, **__):
        raise StoreError("the folder is in maintenance mode")

    monkeypatch.setattr("lightning.pytorch.loggers.CSVLogger.__init__", refuse)
    made = lineage.copy(tmp_path / "runs")
    assert made.run(*ONE, TRUST, "logger=[{class_path: lightning.pytorch.loggers.CSVLogger}]") == 2
    assert "cannot be used: the folder is in maintenance mode" in capsys.readouterr().err
    assert not (made.runs / "logged/alpha").exists()


def test_a_logger_whose_package_is_missing_is_one_clear_error(lineage, tmp_path, capsys):
    made = lineage.copy(tmp_path / "runs")
    assert made.run(*ONE, TRUST, "logger=[{class_path: lightning.pytorch.loggers.WandbLogger}]") == 2
    told = capsys.readouterr().err.strip()
    assert "\n" not in told
    assert "logger[0].class_path" in told
    assert "wandb" in told
    assert not (made.runs / "logged/alpha").exists()
    assert made.run(*ONE, "logger=[{class_path: lightning.pytorch.loggers.CSVLogger}]") == 2
    assert "trust: [lightning]" in capsys.readouterr().err
