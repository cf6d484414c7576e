"""Reference: the same answers counted by hand. Run: pytest tests/experiment/test_prompt_gap_command.py."""

import json
from collections import defaultdict
from pathlib import Path

import pytest

from evaluation.predictions import Prediction
from evaluation.scorers import strict
from experiment.prompt_gap import MEAN, main
from tests.experiment.conftest import contents

SMALL = ("--n", "2", "--k", "4", "--guidelines", "differential", "bayesian", "--max-new-tokens", "20")


def ask(machine, name, *words):
    return main(["--config", str(machine.files / f"{name}.yaml"), f"runs_dir={machine.runs}", *SMALL, *words])


def rows_of(folder: Path) -> dict:
    found = json.loads((folder / "prompt_gap.json").read_text())
    return {(row["model"], row["specialty"], row["questions"]): row for row in found["rows"]}


def test_the_figures_are_those_of_the_answers_and_the_same_again(lineage, tmp_path, monkeypatch, capsys):
    made = lineage.copy(tmp_path / "runs")
    before = {path.name for path in (made.runs / "dsa" / "evaluation" / "cells").glob("*")}
    assert ask(made, "dsa", "--models", "base", "dsa/alpha") == 0
    shown = capsys.readouterr().out
    folder = made.runs / "dsa" / "evaluation"
    rows = rows_of(folder)
    assert set(rows) == {
        (m, s, "all") for m, s in [("base", "alpha"), ("base", "beta"), ("dsa/alpha", "alpha"), ("base", MEAN)]
    }
    by_model = defaultdict(lambda: defaultdict(list))
    for file in (folder / "cells").glob("*.jsonl"):
        if file.name not in before:
            for line in file.read_text().splitlines():
                item = Prediction.from_json(line)
                by_model[item.model, item.specialty][item.guideline].append(strict(item).right)
    for (model, specialty), prompts in by_model.items():
        row = rows[model, specialty, "all"]
        assert row["n"] == 2
        for prompt, right in prompts.items():
            assert len(right) == 8
            assert row["accuracy"][prompt][0] == pytest.approx(sum(right) / 8)
    assert len(by_model) == 3
    assert all(row["difference"][0] == pytest.approx(row["guided"][0] - row["neutral"][0]) for row in rows.values())
    assert any(row["accuracy"]["neutral"][0] > 0 for row in rows.values()), (
        "a made model that is never right tests nothing"
    )
    assert "pass@4 guided" in shown
    assert shown.count("difference of") == 4
    assert (folder / "prompt_gap.md").read_text().strip() in shown

    stood = contents(folder / "cells")
    monkeypatch.setattr("answering.examination.answers", None)  # nothing is asked again
    assert ask(made, "dsa", "--models", "base", "dsa/alpha", "--out", str(tmp_path / "again")) == 0
    assert contents(folder / "cells") == stood
    assert rows_of(tmp_path / "again") == rows
    assert ask(made, "dsa", "--models", "base", "--k", "2", "--samples", "4", "--out", str(tmp_path / "fewer")) == 0
    fewer = rows_of(tmp_path / "fewer")["base", "alpha", "all"]  # of the same answers
    assert fewer["accuracy"] == rows["base", "alpha", "all"]["accuracy"]
    assert fewer["neutral"][0] <= rows["base", "alpha", "all"]["neutral"][0]


def test_it_goes_on_where_it_was_interrupted_and_by_default_asks_the_experts(lineage, tmp_path, monkeypatch, capsys):
    whole, broken = lineage.copy(tmp_path / "whole"), lineage.copy(tmp_path / "broken")
    assert ask(whole, "dsa") == 0
    from answering import examination

    put, calls = examination.Examination.put, []

    def once(self, *rest):
        if len(calls) == 4:
            raise KeyboardInterrupt
        calls.append(rest)
        return put(self, *rest)

    with monkeypatch.context() as patch:
        patch.setattr(examination.Examination, "put", once)
        assert ask(broken, "dsa") == 130
    assert "the same command goes on" in capsys.readouterr().err
    assert ask(broken, "dsa") == 0
    rows = rows_of(broken.runs / "dsa" / "evaluation")
    assert rows == rows_of(whole.runs / "dsa" / "evaluation")
    assert {head[:2] for head in rows} == {("dsa/alpha", "alpha"), ("dsa/beta", "beta"), ("dsa", MEAN)}


@pytest.mark.parametrize(
    ("words", "code", "expected"),
    [
        (("--k", "3"), 2, "--k 3: expected a multiple of the 2 guidelines, at least 2, such as 16"),
        (("--samples", "2"), 2, "--samples 2: must be at least --k 4"),
        (("--guidelines", "neutral"), 2, "it is asked anyway"),
        (("--guidelines", "bayesian", "bayesian"), 2, "name each once"),
        (("--guidelines", "astrology", "bayesian"), 2, "astrology"),
        (("--temperature", "0"), 2, "must be above 0"),
        (("--margin", "0"), 2, "must lie in"),
        (("--models", "nobody"), 2, "no row has such a name; there are base, dsa/alpha, dsa/beta"),
        (("module.init_args.lora_rnk=3",), 2, "lora_rank"),
        (("module.init_args.lora_rank=3",), 2, "lora_rank"),
        (("name=other",), 2, "is not finished, so there is nothing to ask; python train.py --config dsa.yaml"),
    ],
)
def test_what_cannot_be_asked_is_told_and_leaves_nothing(lineage, tmp_path, capsys, words, code, expected):
    before = contents(lineage.runs)
    assert ask(lineage, "dsa", *words) == code
    assert expected in capsys.readouterr().err
    assert contents(lineage.runs) == before


def test_an_experiment_that_trains_a_base_is_not_asked_in_its_place(lineage, capsys):
    assert ask(lineage, "base") == 2  # its own base would be the untrained one
    assert "base.yaml trains a base; name an experiment that requires it" in capsys.readouterr().err
