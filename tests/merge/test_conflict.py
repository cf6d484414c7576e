# Reference: dense arithmetic and arccos(rho)/pi for Gaussian entries. Run: pytest tests/merge/test_conflict.py
import json
import math

import pytest
import torch

from merge.conflict import conflict_report, sign_conflict, to_json, to_markdown
from merge.factors import Factors, TaskVector, add
from merge.truncation import RetainedEnergy


def single(matrix):
    """A task vector of one layer from a small matrix, with A the identity."""
    matrix = torch.tensor(matrix)
    return TaskVector({"layer": Factors(torch.eye(matrix.shape[1]), matrix)})


def gaussian(seed, m, n):
    return torch.randn(m, n, generator=torch.Generator().manual_seed(seed))


def test_report_by_hand():
    # |a| = 5, |b| = 1, a.b = 3: cosine 0.6. M = a + b = (4, 4): <M, a> / 25 = 28 / 25, <M, b> / 1 = 4, |M| = sqrt(32)
    a, b = single([[3.0, 4.0]]), single([[1.0, 0.0]])
    report = conflict_report({"b": b, "a": a}, add([a, b]))
    assert report["experts"]["a"]["norm"] == pytest.approx(5)
    assert report["experts"]["a"]["retention"] == pytest.approx(28 / 25)
    assert report["experts"]["b"]["retention"] == pytest.approx(4)
    assert report["cosine"] == {
        "names": ["a", "b"],
        "matrix": [[pytest.approx(1), pytest.approx(0.6)]] * 1 + [[pytest.approx(0.6), pytest.approx(1)]],
    }
    assert report["merged"]["norm"] == pytest.approx(math.sqrt(32))
    assert report["verdict"] == "good"


def test_sign_conflict_by_hand():
    # Signs (+ - + 0) and (+ + - -): the zero does not vote, 2 of 3 differ.
    a, b = single([[1.0, -1.0, 2.0, 0.0]]), single([[1.0, 1.0, -1.0, -5.0]])
    # rho = (1 - 1 - 2) / (sqrt 6 sqrt 28)
    chance = math.acos(-2 / math.sqrt(6 * 28)) / math.pi
    found = sign_conflict(a, b)
    assert found["rate"] == pytest.approx(2 / 3)
    assert found["chance"] == pytest.approx(chance)
    assert found["excess"] == pytest.approx(2 / 3 - chance)


def test_gaussian_experts_show_no_excess_at_any_correlation():
    x, y = gaussian(1, 60, 400), gaussian(2, 60, 400)
    for rho in (-0.8, 0.0, 0.5, 0.95):
        a = TaskVector({"layer": Factors(x, torch.eye(60))})
        b = TaskVector({"layer": Factors(rho * x + math.sqrt(1 - rho**2) * y, torch.eye(60))})
        found = sign_conflict(a, b)
        assert found["rate"] == pytest.approx(math.acos(rho) / math.pi, abs=0.02)
        assert abs(found["excess"]) < 0.02


def test_sampled_rows_estimate_the_whole_within_their_error():
    a = TaskVector({"layer": Factors(gaussian(1, 5, 40), gaussian(2, 1000, 5))})
    b = TaskVector({"layer": Factors(gaussian(3, 5, 40), gaussian(4, 1000, 5))})
    found = sign_conflict(a, b)
    exact = (a.delta("layer").sign() * b.delta("layer").sign() < 0).double().mean().item()
    assert 0 < found["standard_error"] < 0.05
    assert abs(found["rate"] - exact) < 4 * found["standard_error"]
    assert sign_conflict(a, a)["rate"] == 0
    assert sign_conflict(a, a * -1.0)["rate"] == 1


def test_an_expert_that_is_reversed_is_named(vector):
    a, b = vector(1), vector(2)
    report = conflict_report({"strong": a, "lost": b}, add([a, b], [1.0, -0.5]))
    assert report["verdict"] == "warn"
    assert report["findings"][0].startswith("lost is lost: retention -0.")
    assert not any("strong is" in sentence for sentence in report["findings"])


def test_zero_experts_uneven_norms_and_low_energy_are_named(vector):
    a, b, zero = vector(1), vector(2, scale=0.01), vector(3) * 0.0
    energy = RetainedEnergy({"model.layers.0.q_proj": 0.5}, 0.5)
    report = conflict_report({"a": a, "b": b, "zero": zero}, add([a, b]), energy)
    text = "\n".join(report["findings"])
    assert "zero is zero" in text
    assert "norms are uneven: a" in text
    assert "the rank is too small: 50.0%" in text
    assert report["experts"]["zero"]["retention"] is None
    assert report["sign_conflict"]["a | zero"]["rate"] is None
    json.loads(to_json(report))


def test_texts_hold_every_expert_and_do_not_depend_on_order(vector):
    experts = {"b": vector(2), "a": vector(1), "c": vector(3)}
    merged = add(list(experts.values()))
    report = conflict_report(experts, merged)
    again = conflict_report(dict(sorted(experts.items())), merged)
    assert to_json(report) == to_json(again)
    markdown = to_markdown(report)
    assert markdown == to_markdown(again)
    assert "Verdict: **good**" in markdown
    for name in experts:
        assert f"| {name} | {report['experts'][name]['norm']:.4g} |" in markdown
    assert "| a and b |" in markdown


def test_one_expert_alone(vector):
    report = conflict_report({"only": vector(1)}, vector(1))
    assert report["experts"]["only"]["retention"] == pytest.approx(1)
    assert report["sign_conflict"] == {}
    assert "only" in to_markdown(report)
