# Reference: counts by hand. Run: pytest tests/evaluation/test_gate_check.py
import json

import pytest

from evaluation.gate_check import Held, counted, held, main, outcome
from evaluation.predictions import Prediction


def answers(model, right):
    """Specialty -> a string of 1 and 0, question by question."""
    return [
        Prediction(
            model,
            specialty,
            f"q{i}",
            f"{specialty}{i}",
            "neutral",
            ("yes", "no"),
            "A",
            f"<think>t</think><answer>{'A' if mark == '1' else 'B'}</answer>",
        )
        for specialty, marks in right.items()
        for i, mark in enumerate(marks)
    ]


BASE = {"s": "1" * 10 + "0" * 10, "t": "1" * 10 + "0" * 10}
CASES = {
    # 7 lost of 20, none won, on one of two specialties: McNemar's p is 2 / 2^7 = 0.016, below 0.05 / 2
    "harmed": {"s": "1" * 3 + "0" * 17, "t": "1" * 20},
    # 6 lost: p is 0.031, not below 0.025; but 10 won on the other: 10 against 6 tell nothing
    "undecided": {"s": "1" * 4 + "0" * 16, "t": "1" * 20},
    "helped": {"s": "1" * 13 + "0" * 7, "t": "1" * 13 + "0" * 7},  # 6 won of 40, none lost: p 0.031
}


@pytest.mark.parametrize("told", CASES)
def test_an_agent_is_harmed_or_helped_by_exact_tests(told):
    assert outcome(answers("base", BASE), answers("agent", CASES[told])) == told


def test_answers_to_other_questions_are_refused():
    with pytest.raises(ValueError, match="not to the same questions"):
        outcome(answers("base", BASE), answers("agent", {"s": "10"}))
    with pytest.raises(ValueError, match="0 answers of the base"):
        outcome([], answers("agent", {"s": "10"}))


def test_gates_are_counted_against_outcomes():
    agents = [
        Held("a", frozenset({("retention", "reject"), ("kl", "warn")}), "helped"),
        Held("b", frozenset({("kl", "warn")}), "harmed"),
        Held("c", frozenset({("retention", "warn")}), "harmed"),
        Held("d", frozenset(), "undecided"),
    ]
    assert {name: dict(count) for name, count in counted(agents).items()} == {
        "kl, any": {
            (True, "helped"): 1,
            (True, "harmed"): 1,
            (False, "harmed"): 1,
            (False, "undecided"): 1,
        },
        "retention, reject": {(True, "helped"): 1, (False, "harmed"): 2, (False, "undecided"): 1},
        "retention, any": {
            (True, "helped"): 1,
            (False, "harmed"): 1,
            (True, "harmed"): 1,
            (False, "undecided"): 1,
        },
        "any, reject": {(True, "helped"): 1, (False, "harmed"): 2, (False, "undecided"): 1},
    }


def test_a_finished_experiment_is_read(tmp_path, capsys):
    folder = tmp_path / "gba"
    places = {"ties/rejected": ("ties.rejected", "helped"), "mean": ("mean", "harmed"), "auto/candidates/x": ("", "")}
    rows = answers("base", BASE)
    for place, (name, told) in places.items():
        (folder / "merged" / place).mkdir(parents=True)
        gates = [{"check": "retention", "verdict": "reject" if "rejected" in place else "warn", "text": "t"}]
        gates.append({"check": "figures", "verdict": "accept", "text": "t"})
        (folder / "merged" / place / "conflict.json").write_text(json.dumps({"gates": {"gates": gates}}))
        rows += answers(f"gba/merged/{name}", CASES[told]) if name else []
    (folder / "evaluation").mkdir()
    (folder / "evaluation/predictions.jsonl").write_text("".join(row.to_json() + "\n" for row in rows))
    assert [(agent.name, agent.outcome) for agent in held(folder)] == [
        ("gba/merged/mean", "harmed"),
        ("gba/merged/ties.rejected", "helped"),
    ]
    assert main([str(folder)]) == 0
    told = capsys.readouterr().out
    assert "gba/merged/ties.rejected: helped; retention reject" in told
    assert "| retention, any | 1 | 1 | 0 | 0 | 0 / 0 |" in told
    assert "| any, reject | 0 | 1 | 1 | 0 | 0 / 0 |" in told
    (folder / "merged/mean/conflict.json").write_text('{"gates": {"gates": [{"verdict": "warn", "text": "t"}]}}')
    assert main([str(folder)]) == 2
    assert "holds no gates with the names of their checks" in capsys.readouterr().err
    assert main([str(tmp_path / "nothing")]) == 1
