# Reference: fractions by hand, resamples drawn one patient at a time, simulated experiments whose truth is known.
# Run: pytest tests/evaluation/test_headroom.py
import csv
import io
import json
import random

import numpy as np
import pytest

from evaluation import headroom as headrooms
from evaluation.costs import costs_of, costs_table
from evaluation.headroom import MACRO, headroom, headroom_csv, headroom_table, headroom_text, worst
from evaluation.predictions import Prediction
from evaluation.summary import recovered_markdown
from evaluation.tables import report

ANSWER = {True: "<think>x</think><answer>A</answer>", False: "<think>x</think><answer>B</answer>"}


def answers(model, specialty, rights, each=1):
    """So many questions of each patient."""
    return [
        Prediction(model, specialty, f"q{i}", f"p{i // each}", "neutral", ("yes", "no"), "A", ANSWER[bool(right)])
        for i, right in enumerate(rights)
    ]


def share(right, n=100):
    return [i < right for i in range(n)]


def made(scores, n=100):
    """Model -> specialty -> right answers of n."""
    return [p for model, of in scores.items() for s, right in of.items() for p in answers(model, s, share(right, n))]


SCORES = {
    "base": {"a": 20, "b": 40},
    "sft/a": {"a": 50, "b": 10},
    "sft/b": {"a": 10, "b": 60},
    "gba/a": {"a": 60, "b": 0},
    "gba/b": {"a": 0, "b": 80},
    "gba/merged/mean": {"a": 30, "b": 50},
    "integrate/agent": {"a": 60, "b": 70},
    "gba/router/oracle": {"a": 60, "b": 80},
    "gba/router/learned": {"a": 60, "b": 79},
    "half/agent": {"a": 60},  # was not asked about b
}


def test_what_is_recovered_by_hand():
    found = headroom(made(SCORES))
    assert found.experts == "gba"  # the last experiment with an expert of each
    got = {(row.model, row.specialty): (row.headroom[0], row.cost[0], row.share and row.share[0]) for row in found.rows}
    expected = {
        ("gba/merged/mean", "a"): (0.4, -0.3, 0.25),
        ("gba/merged/mean", "b"): (0.4, -0.3, 0.25),
        ("gba/merged/mean", MACRO): (0.4, -0.3, 0.25),
        ("integrate/agent", "a"): (0.4, 0.0, 1.0),
        ("integrate/agent", "b"): (0.4, -0.1, 0.75),
        ("integrate/agent", MACRO): (0.4, -0.05, 0.875),
        ("gba/router/learned", "a"): (0.4, 0.0, 1.0),
        ("gba/router/learned", "b"): (0.4, -0.01, 0.975),
        ("gba/router/learned", MACRO): (0.4, -0.005, 0.9875),
    }
    assert got.keys() == expected.keys()
    for key, values in expected.items():
        assert got[key] == pytest.approx(values), key
    assert list(found.by_model) == ["gba/router/learned", "integrate/agent", "gba/merged/mean"]
    assert worst(found.by_model["integrate/agent"]).specialty == "b"
    lines = headroom_text(found).splitlines()
    assert lines[0].startswith("recovered of what the experts of gba gain over the base (+40.0 [")
    assert lines[2].split()[0] == "integrate/agent"
    assert lines[2].endswith("b 75.0")
    rows = list(csv.DictReader(io.StringIO(headroom_csv(found))))
    assert [float(row["share"]) for row in rows] == pytest.approx([row.share[0] for row in found.rows])
    assert headroom_table(found) in report(made(SCORES), (), ())


def test_the_interval_is_that_of_patients_drawn_one_by_one(monkeypatch):
    rng = random.Random(3)
    rights = {m: [rng.random() < p for _ in range(60)] for m, p in {"base": 0.2, "x/a": 0.9, "agent": 0.6}.items()}
    found = headroom([p for m, of in rights.items() for p in answers(m, "a", of, each=3)])
    (row,) = found.rows
    assert (row.n, row.patients) == (60, 20)
    draws = []
    for _ in range(4000):
        taken = [3 * rng.randrange(20) for _ in range(20)]
        items = [first + k for first in taken for k in range(3)]
        base, expert, agent = (sum(rights[m][i] for i in items) / 60 for m in ("base", "x/a", "agent"))
        draws.append((agent - base) / (expert - base))
    assert row.share[1:] == pytest.approx(np.quantile(draws, (0.025, 0.975)), abs=0.03)


@pytest.mark.parametrize(("gain", "divided"), [(0, False), (3, False), (-20, False), (30, True)])
def test_a_headroom_that_may_be_none_is_not_divided_by(gain, divided):
    found = headroom(made({"base": {"a": 40}, "x/a": {"a": 40 + gain}, "x/merged/m": {"a": 45}}))
    (row,) = found.rows
    assert (row.share is not None) == divided
    assert ("headroom too small to divide by" in headroom_text(found)) != divided
    assert ("headroom too small to divide by" in headroom_table(found)) != divided
    assert headroom_csv(found).splitlines()[1].endswith(",,") != divided
    assert row.headroom[0] == pytest.approx(gain / 100)


@pytest.mark.parametrize("without", ["base", "x/a", "x/merged/m"])
def test_nothing_is_told_where_a_part_is_missing(without):
    scores = {"base": {"a": 20}, "x/a": {"a": 80}, "x/merged/m": {"a": 50}}
    assert headroom(made(scores)) is not None
    assert headroom(made({name: of for name, of in scores.items() if name != without})) is None


def test_models_that_answered_other_questions_are_refused():
    items = made({"base": {"a": 20}, "x/a": {"a": 80}, "x/merged/m": {"a": 50}})
    with pytest.raises(ValueError, match="did not answer the same questions"):
        headroom(items[:-1])


def test_the_interval_covers_the_truth(monkeypatch):
    # 150 patients with two questions each, whose answers hang together; the truth is (0.6 - 0.3) / (0.8 - 0.3)
    monkeypatch.setattr(headrooms, "DRAWS", 400)
    generator, covered, times = np.random.default_rng(5), 0, 80
    for _ in range(times):
        skill = generator.random(150).repeat(2)
        own = {m: (0.5 * skill + 0.5 * generator.random(300)) for m in ("base", "x/a", "x/merged/m")}
        cuts = {m: quantile_of(p) for m, p in {"base": 0.3, "x/a": 0.8, "x/merged/m": 0.6}.items()}
        (row,) = headroom([p for m, u in own.items() for p in answers(m, "a", u < cuts[m], each=2)]).rows
        covered += row.share[1] <= 0.6 <= row.share[2]
    assert covered / times > 0.95 - 3 * (0.95 * 0.05 / times) ** 0.5


def quantile_of(p):
    """Below it lies a share p of the means of two uniform numbers."""
    return (p / 2) ** 0.5 if p <= 0.5 else 1 - ((1 - p) / 2) ** 0.5


def test_over_seeds_stand_means_and_spreads_of_the_shares():
    first, second = headroom(made(SCORES)), headroom(made(SCORES | {"integrate/agent": {"a": 40, "b": 70}}))
    lines = recovered_markdown([first, second]).splitlines()
    assert lines[0] == f"| recovered, % | {MACRO} | a | b | worst specialty |"
    assert "| integrate/agent | 75.0 ± 17.7 | 75.0 ± 35.4 | 75.0 ± 0.0 | 62.5 ± 17.7 |" in lines  # 75 of b, 50 of a
    low = headroom(made(SCORES | {"gba/a": {"a": 21, "b": 0}, "gba/router/oracle": {"a": 21, "b": 80}}))
    told = recovered_markdown([first, low]).splitlines()
    assert next(line for line in told if "integrate" in line).split(" | ")[2] == "headroom too small"


def test_costs_are_those_of_all_that_is_required(tmp_path):
    def run(experiment, name, **times):
        folder = tmp_path / experiment / name
        folder.mkdir(parents=True)
        (folder / "timings.json").write_text(json.dumps(times))

    run("dsa", "a", batches=10, rollouts=0, cpu_s=5.0, **{"memory/peak_mib": 300.0})
    run("dsa", "b", batches=12, rollouts=0, cpu_s=7.0, **{"memory/peak_mib": 200.0})
    run("agent", "agent", batches=3, rollouts=48, cpu_s=2.5, **{"memory/peak_mib": 100.0})
    run("old", "a", batches=3, **{"memory/peak_mib": 50.0})
    required = {"sft": {"name": "dsa"}, "former": {"name": "old"}, "gone": {"name": "gone"}}
    (tmp_path / "agent" / "experiment.json").write_text(json.dumps({"required": required}))
    found = costs_of(tmp_path / "agent" / "evaluation")
    assert [(c.experiment, c.runs, c.steps, c.rollouts, c.cpu_s, c.peak_mib) for c in found] == [
        ("dsa", 2, 22, 0, 12.0, 300.0),
        ("old", 1, 3, None, None, 50.0),
        ("agent", 1, 3, 48, 2.5, 100.0),
    ]
    assert "| old | 1 | 3 | - | - | 50 |" in costs_table(found)
    (tmp_path / "old" / "a" / "timings.json").write_text("{")
    with pytest.raises(ValueError, match=r"timings\.json: is damaged"):
        costs_of(tmp_path / "agent")
