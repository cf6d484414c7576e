"""Reference: the same lineage with one worker, byte for byte. Run: pytest tests/experiment/test_side_by_side.py."""

import json
from types import SimpleNamespace

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import train
from experiment import side_by_side
from tests.experiment.test_resume import WEIGHTS

MATRIX = ("evaluation/matrix.csv", "evaluation/predictions.jsonl")


@pytest.fixture
def started(monkeypatch):
    """The command of every process that is started; each does its work here, at once."""
    commands = []

    class Process:
        def __init__(self, command, **_):
            commands.append(command[2:])
            self.code = train.main(command[2:])

        def poll(self):
            return self.code

        wait = poll

    monkeypatch.setattr(side_by_side, "subprocess", SimpleNamespace(Popen=Process))
    return commands


@pytest.fixture(scope="module")
def plain(lineage, tmp_path_factory):
    """Lineage and agent by one worker: read it, do not change it."""
    made = lineage.copy(tmp_path_factory.mktemp("plain") / "runs")
    assert made.run("integrate", "callbacks.cards=null") == 0
    return made


def same(made, plain, *names):
    return [name for name in names if (made.runs / name).read_bytes() == (plain.runs / name).read_bytes()] == [*names]


def states(made, *names):
    return {json.loads((made.runs / name / "status.json").read_text())["state"] for name in names}


def test_a_worker_trains_what_its_specialties_stand_on(based, lineage, tmp_path, started, monkeypatch):
    counted, made = [], based.copy(tmp_path / "runs")
    monkeypatch.setattr(side_by_side, "Outlook", lambda name, runs: counted.append((name, runs)))
    assert made.run("gba", "workers=2") == 0
    assert [[one for one in command if ":only=" in one] for command in started] == [
        ['gba:only=["alpha"]'],
        ['gba:only=["beta"]'],
    ]
    assert all({"base:workers=1", "dsa:workers=1", "gba:workers=1"} < {*command} for command in started)
    assert same(made, lineage, *(f"{s}/{n}/{WEIGHTS}" for s in ("dsa", "gba") for n in ("alpha", "beta")))
    assert same(made, lineage, *(f"gba/{name}" for name in MATRIX))
    assert states(made, "base", "dsa", "dsa/alpha", "gba", "gba/beta") == {"finished"}
    assert counted == [("gba", 4)]  # those beneath count too


def test_experiments_with_another_number_of_workers_are_trained_before(based, tmp_path, started):
    made = based.copy(tmp_path / "runs")
    light = ("callbacks.merge=null", "callbacks.evaluate=null")
    assert made.run("gba", "workers=2", "dsa:workers=1", *light) == 0
    assert ["dsa:only" in str(command) for command in started] == [False, False]
    assert made.without("gba/alpha").run("gba", "workers=2", *light) == 0  # a single one is trained here
    assert len(started) == 2


def test_what_an_agent_is_made_from_is_examined_beside_its_training(lineage, plain, tmp_path, started, capsys):
    drawn = ("gba:callbacks.merge.init_args.pictures=true", "callbacks.cards=null")
    made = lineage.copy(tmp_path / "runs").without("gba/merged", "gba/evaluation")
    assert made.run("integrate", "workers=2", *drawn) == 0
    (command,) = started
    assert command[-2:] == ["--part", "1/1"]
    assert command[1].endswith("gba.yaml")
    out = capsys.readouterr().out
    assert "answered 1 pieces of gba/alpha on beta, share 1 of 1" in out
    assert "answered 1 pieces of gba/merged" not in out  # which were not there yet, and are asked at the end
    assert same(made, plain, f"integrate/agent/{WEIGHTS}", *(f"{s}/{n}" for s in ("gba", "integrate") for n in MATRIX))
    events = EventAccumulator(str(made.runs / "gba/merged/ties"), size_guidance={"images": 0}).Reload()
    assert "weights/experts" in events.Tags()["images"]
    assert states(made, "gba", "integrate") == {"finished"}
    assert not list(made.runs.rglob("*.parts"))
    assert made.without("integrate").run("integrate", "workers=2", *drawn, "callbacks.evaluate=null") == 0
    assert len(started) == 1  # nobody is left to be asked


def test_a_share_asks_and_draws_what_came_since(lineage, tmp_path, capsys):
    made = lineage.copy(tmp_path / "runs").without("gba/evaluation", "gba/merged/ties/board.manifest.json")
    assert made.run("gba", "--part", "1/1") == 0
    assert (made.runs / "gba/merged/ties/board.manifest.json").exists()
    out = capsys.readouterr().out
    assert out.count("answered 1 pieces of gba/merged/ties on alpha") == 1
    board = (made.runs / "gba/merged/ties/board.manifest.json").read_bytes()
    assert made.run("gba", "--part", "1/1") == 0  # nothing is left
    assert "answered" not in capsys.readouterr().out
    assert (made.runs / "gba/merged/ties/board.manifest.json").read_bytes() == board


def test_answers_that_a_helper_did_not_give_are_asked_for_afterwards(lineage, plain, tmp_path, monkeypatch, capsys):
    class Dead:
        def __init__(self, command, **_):
            pass

        def wait(self):
            return -9

    monkeypatch.setattr(side_by_side, "subprocess", SimpleNamespace(Popen=Dead))
    made = lineage.copy(tmp_path / "runs").without("gba/evaluation")
    assert made.run("integrate", "workers=2", "callbacks.cards=null", "gba:workers=1", "callbacks.evaluate=null") == 0
    assert same(made, plain, *(f"gba/{name}" for name in MATRIX))
    assert "gba 1: examining beside the training ended early (killed by SIGKILL" in capsys.readouterr().out


def test_helpers_are_stopped_where_the_training_fails(lineage, tmp_path, monkeypatch, capsys):
    told = []

    class Helper:
        def __init__(self, command, **_):
            told.append(command[-1])

        def terminate(self):
            told.append("terminate")

        def wait(self):
            told.append("wait")

    def fails(*_):
        raise RuntimeError("the disk is gone")

    monkeypatch.setattr(side_by_side, "subprocess", SimpleNamespace(Popen=Helper))
    monkeypatch.setattr("experiment.run.train", fails)
    made = lineage.copy(tmp_path / "runs").without("gba/evaluation")
    assert made.run("integrate", "workers=3") == 1
    assert told == ["1/2", "2/2", "terminate", "terminate", "wait", "wait"]
    assert "the disk is gone" in capsys.readouterr().err
    assert not (made.runs / "gba/evaluation/matrix.csv").exists()
