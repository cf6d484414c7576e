"""Reference: the lineage's matrix without the column, and its answers scored by hand.

Run: pytest tests/experiment/test_kept_column.py.
"""

import csv
import json

import pytest
import yaml

from evaluation.predictions import read_predictions
from evaluation.rescore import main as rescore
from evaluation.scorers import main_outcome
from tests.experiment.conftest import bars, write_bars
from tests.experiment.test_tensorboard_tags import read


def asking(machine, files, root, n=5, **options):
    """The lineage, whose matrix has a column of the base's own questions."""
    callbacks = yaml.safe_load((machine.files / "gba.yaml").read_text())["callbacks"]
    data = bars(root, names=["neutral"], test_fraction=0.5, split_seed=7)
    callbacks["evaluate"]["init_args"] |= {"kept": data, "n_kept": n, "routers": ["oracle"]} | options
    return machine.write(files, "gba", callbacks=callbacks)


@pytest.fixture(scope="module")
def kept(lineage, tmp_path_factory):
    """Asked: read it, do not change it."""
    folder = tmp_path_factory.mktemp("kept")
    write_bars(folder / "own", "k")
    made = asking(lineage.copy(folder / "runs"), folder / "files", folder / "own")
    assert made.run("gba") == 0
    return made


def test_the_column_stands_beside_the_matrix_and_in_no_mean(kept, lineage):
    folder, before = (one.runs / "gba/evaluation" for one in (kept, lineage))
    rows, plain = (list(csv.DictReader((one / "matrix.csv").open())) for one in (folder, before))
    named = {row["model"]: row for row in rows}
    for row in plain:  # every other number is as it was
        assert {key: named[row["model"]][key] for key in row} == row
    answers = {}
    for item in read_predictions(folder / "kept.jsonl"):
        answers.setdefault(item.model, {})[item.question_id] = main_outcome(item).right
    assert set(answers) == {row["model"] for row in plain}
    for model, right in answers.items():
        assert len(right) == 5
        assert float(named[model]["kept/accuracy"]) == pytest.approx(sum(right.values()) / 5, abs=1e-6)
        if model == "base":
            assert named[model]["kept/difference"] == ""
            continue
        lost = sum(right[key] - answers["base"][key] for key in right) / 5
        assert float(named[model]["kept/difference"]) == pytest.approx(lost, abs=1e-6)
        assert float(named[model]["kept/difference_low"]) < float(named[model]["kept/difference_high"])
    assert named["gba/router/oracle"]["kept/accuracy"] == ""  # a router has no question of its own to send
    assert all(item.specialty in ("alpha", "beta") for item in read_predictions(folder))
    assert set(json.loads((folder / "scores.json").read_text())["base"]) == {"alpha", "beta"}


def test_it_is_in_report_and_board_and_follows_from_its_answers(kept, capsys):
    folder = kept.runs / "gba/evaluation"
    text = (folder / "report.md").read_text("utf-8")
    assert "## Kept of the base's own questions" in text
    assert "## Verdict" in text
    assert rescore([str(folder), "--check"]) == 0
    assert text.strip() in capsys.readouterr().out
    scalars = read(folder).Tags()["scalars"]
    assert "test/kept/accuracy/base" in scalars
    assert "test/kept/difference/gba.merged.ties" in scalars
    assert "test/accuracy/kept/base" not in scalars
    claims = json.loads((folder / "verdict.json").read_text())
    assert [claim["system"] for claim in claims][:2] == ["dsa's experts", "gba's experts"]
    assert [claim["system"] for claim in claims if claim["on"] == "the base's own questions"][:2] == [
        "dsa's experts",
        "gba's experts",
    ]
    assert all(claim["sentence"] in text for claim in claims)


def test_asked_again_it_asks_nothing_and_without_it_nothing_is_left(kept, lineage, tmp_path, monkeypatch, capsys):
    made = kept.copy(tmp_path / "runs")
    folder = made.runs / "gba/evaluation"
    before = {path.name: path.read_bytes() for path in folder.glob("*.*")}

    def asked(*_):
        raise AssertionError("what stands is not asked again")

    with monkeypatch.context() as patch:
        patch.setattr("callbacks.evaluate_experts.answer_cells", asked)
        assert made.run("gba") == 0
    assert "kept" in capsys.readouterr().out
    assert {path.name: path.read_bytes() for path in folder.glob("*.*")} == before
    assert made.run("gba", "callbacks.evaluate.init_args.kept=null", "callbacks.evaluate.init_args.routers=[]") == 0
    assert not (folder / "kept.jsonl").exists()
    assert (folder / "matrix.csv").read_bytes() == (lineage.runs / "gba/evaluation/matrix.csv").read_bytes()


def test_its_questions_are_not_those_that_are_trained_on(lineage, bars_module, tmp_path, capsys):
    # alpha's pictures split otherwise: some are in its training rows; told of finished experts too
    leak = asking(lineage.copy(tmp_path / "runs"), tmp_path / "files", bars_module / "data/alpha")
    assert leak.run("gba") == 1
    error = capsys.readouterr().err
    assert "what is examined must not be trained on" in error
    assert "kept/test" in error


def test_a_bad_set_is_told_before_anything_trains(lineage, bars_module, tmp_path, capsys):
    made = lineage.copy(tmp_path / "runs").without("gba")
    gone = asking(made, tmp_path / "files", tmp_path / "nowhere")
    assert gone.run("gba") == 1
    assert not (made.runs / "gba/alpha").exists()
    capsys.readouterr()
    key = "callbacks.evaluate.init_args.kept"
    assert made.run("gba", f"{key}.class_path=merge.methods.ties.Ties") == 2
    assert "this place takes a subclass of datamodules.base.VQADataModule" in capsys.readouterr().err


def test_a_specialty_of_that_name_is_one_as_long_as_nothing_is_kept(lineage, bars_module, tmp_path, capsys):
    from configs.load import load
    from experiment.run import assemble

    specialties = {"kept": bars(bars_module / "data/alpha")}
    other = lineage.write(tmp_path / "files", "dsa", specialties=specialties)
    callback = {"class_path": "callbacks.evaluate_experts.EvaluateExperts", "init_args": {"n": 3}}
    context = assemble(load(other.files / "dsa.yaml", [f"runs_dir={lineage.runs}", f"callbacks.evaluate={callback}"]))
    made = next(one for one in context.callbacks() if hasattr(one, "matrix"))
    assert made.matrix.data("kept") is context.data("kept")
    assert len(made.matrix.chosen("kept")) == 3
    callback["init_args"]["kept"] = bars(tmp_path)
    context = assemble(load(other.files / "dsa.yaml", [f"runs_dir={lineage.runs}", f"callbacks.evaluate={callback}"]))
    with pytest.raises(ValueError, match="call the specialty otherwise"):
        list(context.callbacks())
