# Reference: dense arithmetic and arccos(rho)/pi for Gaussian entries. Run: pytest tests/merge/test_conflict.py
import json
import math

import pytest
import torch

from merge.conflict import between_experts, signs_of, spread, with_merged
from merge.factors import Factors, TaskVector, add
from merge.gates import Answers, bootstrap_interval, gates_on_answers, gates_on_updates, summary
from merge.products import Stack
from merge.report import conflict_report, to_json, to_markdown
from merge.smoke import Smoke


def single(matrix):
    """A task vector of one layer from a small matrix, with A the identity."""
    matrix = torch.tensor(matrix)
    return TaskVector({"layer": Factors(torch.eye(matrix.shape[1]), matrix)})


def gaussian(seed, m, n):
    return torch.randn(m, n, generator=torch.Generator().manual_seed(seed))


def module_conflict(names, factors, merged):
    """All that the report needs to know of one module."""
    stack = Stack.of(factors)
    return between_experts(names, factors, stack.products) | with_merged(stack, merged)


def report_on(vectors, merged, kept=1.0, survival=None):
    """The report of experts and what became of them, cut so that a share of the energy is kept."""
    names = sorted(vectors)
    modules = {}
    for name in merged:
        found = module_conflict(names, [vectors[n][name] for n in names], merged[name])
        whole = merged.delta(name).double().square().sum().item()
        modules[name] = found | {"energy": [kept * whole, whole], "rank": merged[name].rank, "survival": survival}
    return conflict_report(names, modules)


def sign_conflict(a, b):
    return report_on({"a": a, "b": b}, a)["sign_conflict"]["a | b"]


def test_report_by_hand():
    # |a| = 5, |b| = 1, a.b = 3: cosine 0.6. M = a + b = (4, 4): <M, a> / 25 = 28 / 25, <M, b> / 1 = 4, |M| = sqrt(32)
    a, b = single([[3.0, 4.0]]), single([[1.0, 0.0]])
    report = report_on({"b": b, "a": a}, add([a, b]), survival=[0.5, 0.2])
    assert report["experts"]["a"]["norm"] == pytest.approx(5)
    assert report["experts"]["a"]["retention"] == pytest.approx(28 / 25)
    assert report["experts"]["b"]["retention"] == pytest.approx(4)
    # (M - a) a^T = (1, 0).(3, 4) = 3 of a a^T = 25; (M - b) b^T = (3, 4).(1, 0) = 3 of 1
    assert report["experts"]["a"]["interference"] == pytest.approx(3 / 25)
    assert report["experts"]["b"]["interference"] == pytest.approx(3)
    assert (report["experts"]["a"]["survival"], report["experts"]["b"]["survival"]) == (0.5, 0.2)
    assert report["names"] == ["a", "b"]
    assert report["cosine"][0] == [pytest.approx(1), pytest.approx(0.6)]
    assert report["cosine"][1] == [pytest.approx(0.6), pytest.approx(1)]
    assert report["merged"]["norm"] == pytest.approx(math.sqrt(32))
    assert report["merged"]["norm_over_largest_expert"] == pytest.approx(math.sqrt(32) / 5)
    assert report["mass_conflict"] == pytest.approx(0)
    assert report["verdict"] == "good"


def test_mass_conflict_by_hand():
    # entries +3 -1 and +1 +1: |2| + |2| of 4 + 2
    report = report_on({"a": single([[3.0, 1.0]]), "b": single([[-1.0, 1.0]])}, single([[1.0, 1.0]]))
    assert report["mass_conflict"] == pytest.approx(1 - 4 / 6)


def test_overlaps_by_hand():
    # a reads inputs 0 and 1 and writes output 0; b reads input 1 and writes output 1; c reads (0 + 1) / sqrt 2
    a = Factors(torch.tensor([[2.0, 0, 0], [0, 1, 0]]), torch.tensor([[1.0, 1], [0, 0]]))
    b = Factors(torch.tensor([[0.0, 1, 0]]), torch.tensor([[0.0], [3]]))
    c = Factors(torch.tensor([[1.0, 1, 0]]), torch.tensor([[1.0], [1]]))
    found = module_conflict(["a", "b", "c"], [a, b, c], a)["overlap"]
    torch.testing.assert_close(torch.tensor(found["inputs"]), torch.tensor([[1, 1, 1], [1, 1, 0.5], [1, 0.5, 1]]))
    torch.testing.assert_close(torch.tensor(found["outputs"]), torch.tensor([[1, 0, 0.5], [0, 1, 0.5], [0.5, 0.5, 1]]))


def test_interference_equals_the_dense_formula(vector):
    a, b = vector(1), vector(2, rank=6)
    merged = add([a, b], [0.5, 2.0])
    report = report_on({"a": a, "b": b}, merged)
    for name, v in (("a", a), ("b", b)):
        disturbed = sum(((merged.delta(m) - v.delta(m)).double() @ v.delta(m).double().T).square().sum() for m in v)
        own = sum((v.delta(m).double() @ v.delta(m).double().T).square().sum() for m in v)
        assert report["experts"][name]["interference"] == pytest.approx((disturbed / own).sqrt().item(), rel=1e-4)
    assert report_on({"a": a}, a)["experts"]["a"]["interference"] == pytest.approx(0, abs=1e-5)


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


def test_sums_over_modules_are_the_whole(vector):
    a, b = vector(1), vector(2)
    modules = [module_conflict(["a", "b"], [a[m], b[m]], a[m]) for m in a]
    total = sum((signs_of(m["signs"]["a | b"]) for m in modules[1:]), signs_of(modules[0]["signs"]["a | b"]))
    differ = sum((a.delta(m).sign() * b.delta(m).sign() < 0).sum().item() for m in a)
    assert total.summary()["rate"] == pytest.approx(differ / sum(a.delta(m).numel() for m in a))
    report = report_on({"a": a, "b": b}, add([a, b]))
    assert set(report["modules"]) == set(a)
    for name, found in report["modules"].items():
        alone = report_on(
            {k: TaskVector({name: v[name]}) for k, v in (("a", a), ("b", b))}, TaskVector({name: add([a, b])[name]})
        )
        assert found["retention"]["a"] == alone["experts"]["a"]["retention"]
        assert found["sign_conflict"] == alone["sign_conflict"]["a | b"]["rate"]
        assert found["mass_conflict"] == alone["mass_conflict"]


def test_an_expert_that_is_reversed_is_named(vector):
    a, b = vector(1), vector(2)
    report = report_on({"strong": a, "lost": b}, add([a, b], [1.0, -0.5]))
    assert report["verdict"] == "warn"
    assert report["findings"][0].startswith("lost is lost: retention -0.")
    assert not any("strong is" in sentence for sentence in report["findings"])


def test_zero_experts_uneven_norms_and_low_energy_are_named(vector):
    a, b, zero = vector(1), vector(2, scale=0.01), vector(3) * 0.0
    report = report_on({"a": a, "b": b, "zero": zero}, add([a, b]), kept=0.5)
    text = "\n".join(report["findings"])
    assert "zero is zero" in text
    assert "norms are uneven: a" in text
    assert "the rank is too small: 50.0%" in text
    assert report["experts"]["zero"]["retention"] is None
    assert report["sign_conflict"]["a | zero"]["rate"] is None
    json.loads(to_json(report))
    to_markdown(report)


def test_texts_hold_every_expert_and_do_not_depend_on_order(vector):
    experts = {"b": vector(2), "a": vector(1), "c": vector(3)}
    merged = add(list(experts.values()))
    report = report_on(experts, merged)
    again = report_on(dict(sorted(experts.items())), merged)
    assert to_json(report) == to_json(again)
    markdown = to_markdown(report)
    assert markdown == to_markdown(again)
    assert "Verdict: **good**" in markdown
    for name in experts:
        assert f"| {name} | {report['experts'][name]['norm']:.4g} |" in markdown
    assert "| a and b |" in markdown
    for module in merged:
        assert f"| {module} |" in markdown


def test_one_expert_alone(vector):
    report = report_on({"only": vector(1)}, vector(1))
    assert report["experts"]["only"]["retention"] == pytest.approx(1)
    assert report["sign_conflict"] == {}
    assert "only" in to_markdown(report)


# -- gates -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("weights", "verdict", "text"),
    [
        ((1.0, 1.0), "accept", None),
        ((1.0, 0.1), "note", "retention of b"),
        ((1.0, -0.5), "note", "moves against it"),
        ((4.0, 4.0), "warn", "times the largest expert's norm"),
        ((9.0, 9.0), "reject", "times the largest expert's norm"),
        ((0.01, 0.01), "reject", "times the largest expert's norm"),
        ((0.0, 0.0), "reject", "the merged update is zero"),
    ],
)
def test_gates_on_updates(vector, weights, verdict, text):
    a, b = vector(1), vector(2)
    found = summary(gates_on_updates(report_on({"a": a, "b": b}, add([a, b], list(weights)))))
    assert found["verdict"] == verdict
    assert text is None or any(text in gate["text"] for gate in found["gates"])


def test_a_norm_out_of_proportion_is_a_note_where_answers_tell(vector):
    a, b = vector(1), vector(2)
    for factor in (9.0, 0.01):
        found = gates_on_updates(report_on({"a": a, "b": b}, add([a, b], [factor, factor])), examined=True)
        assert summary(found)["verdict"] == "note"


def answers(right, n=100):
    return [i < right for i in range(n)]


@pytest.mark.parametrize(
    ("merged", "verdict", "count"),
    [(70, "accept", 0), (60, "note", 1), (38, "warn", 2), (5, "reject", 2)],
)
def test_gates_on_answers(merged, verdict, count):
    # base 40, expert 75 of 100 questions; 0.9 * 75 = 67.5
    gates = gates_on_answers({"s": Answers(answers(40), answers(75), answers(merged))})
    assert (summary(gates)["verdict"], len(gates)) == (verdict, count)


def test_what_answers_better_than_the_base_over_all_is_never_rejected():
    better = Answers(answers(20), answers(90), answers(80))
    harmed = Answers(answers(40), answers(75), answers(5), Smoke(0.5, 1.0, [True] * 40, [False] * 40))
    alone = gates_on_answers({"s": harmed})
    assert [(gate.check, gate.verdict) for gate in alone] == [
        ("loops", "reject"),
        ("figures", "accept"),
        ("base", "reject"),
        ("expert", "note"),
    ]
    beside = gates_on_answers({"s": harmed, "t": better})  # 85 of 200 against 60: 60 won, 35 lost
    assert [(gate.check, gate.verdict) for gate in beside if gate.check in ("loops", "base")] == [
        ("loops", "warn"),
        ("base", "warn"),
    ]
    assert "over all questions 0.425 against the base's 0.300, so not rejected" in beside[0].text
    hardly = Answers(answers(40), answers(90), answers(76))  # 81 of 200 against 80: nothing to tell them apart
    assert summary(gates_on_answers({"s": harmed, "t": hardly}))["verdict"] == "reject"
    silent = Answers(answers(40), answers(75), answers(5), Smoke(math.nan, 1.0, [False] * 40, [False] * 40))
    assert summary(gates_on_answers({"s": silent, "t": better}))["verdict"] == "reject"


def test_the_interval_covers_what_it_should():
    a, b = answers(60, 200), answers(40, 200)
    low, high = bootstrap_interval(a, b)
    # 20 questions of 200 differ: 0.1, standard error sqrt(0.1 * 0.9 / 200) = 0.0212
    assert (low, high) == (pytest.approx(0.1 - 1.96 * 0.0212, abs=0.01), pytest.approx(0.1 + 1.96 * 0.0212, abs=0.01))
    assert bootstrap_interval(a, b) == (low, high)
    assert bootstrap_interval(a, a) == (0, 0)


def test_answers_to_different_questions_are_refused():
    with pytest.raises(ValueError, match="same ones"):
        Answers([True], [True, False], [True])


def test_rows_are_spread_over_heads_and_within_them():
    for m in (1, 5, 64, 100, 512, 4096, 18944):
        rows = spread(m, 64).tolist()
        assert rows == sorted(set(rows))
        assert 0 <= rows[0]
        assert rows[-1] < m
        assert len(rows) == min(m, 64)
    # 64 heads of 64 rows: experts that differ in the first row of every head disagree in a 64th of the entries.
    A, B = gaussian(1, 4, 32), gaussian(2, 4096, 4)
    flipped = B.clone()
    flipped[::64] *= -1
    a, b = Factors(A, B), Factors(A, flipped)
    differ = module_conflict(["a", "b"], [a, b], a)["signs"]["a | b"]
    assert 0 <= differ["differ"] / differ["both"] < 0.1
