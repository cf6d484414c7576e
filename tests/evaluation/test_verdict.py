# Reference: the intervals of the comparisons themselves, and made matrices of which it is known what they show.
# Run: pytest tests/evaluation/test_verdict.py
import json
import math
import random
from dataclasses import replace

import pytest

from evaluation.agents import system
from evaluation.kept import KEPT, kept_column
from evaluation.matrix_table import matrix_csv, matrix_figure, matrix_text
from evaluation.paired import paired_difference
from evaluation.pairwise import compare_pair
from evaluation.predictions import Prediction
from evaluation.scoring import matrix
from evaluation.shares import Share
from evaluation.verdict import Claim, verdict, verdict_json, verdict_text


def completion(right):
    return f"<think>so.</think><answer>{'A' if right else 'B'}</answer>"


def answers(model, specialty, right, both=2):
    """One answer per entry of `right`; two questions of each patient."""
    return [
        Prediction(
            model,
            specialty,
            f"{specialty}{number}",
            f"p{number // both}",
            "neutral",
            ("x", "y"),
            "A",
            completion(held),
            {"question_type": "lookup" if number % 2 else "repeat"},
        )
        for number, held in enumerate(right)
    ]


def drawn(rng, n, chance):
    return [rng.random() < chance for _ in range(n)]


def experiment(seed, n=120, **chances):
    """Row -> chance on its own and on the other specialty; experts have 0.3 elsewhere."""
    rng = random.Random(seed)
    found = []
    for model, chance in {"base": 0.3, **chances}.items():
        name = model.replace("_", "/", 2) if model != "base" else model
        for specialty in ("a", "b"):
            own = not name.endswith(("/a", "/b")) or name.endswith(f"/{specialty}")
            found += answers(name, specialty, drawn(rng, n, chance if own else 0.3))
    return found


def kept_answers(seed, n=60, **chances):
    rng = random.Random(seed)
    return [
        item
        for model, chance in chances.items()
        for item in answers(model.replace("_", "/", 2), KEPT, drawn(rng, n, chance), 1)
    ]


FULL = {"dsa_a": 0.8, "dsa_b": 0.8, "gba_a": 0.8, "gba_b": 0.8, "gba_merged_ties": 0.35, "gba_merged_mean": 0.6}


def test_it_says_what_the_intervals_say():
    made, kept = (
        experiment(1, **FULL),
        kept_answers(2, base=0.95, dsa_a=0.4, dsa_b=0.5, gba_a=0.4, gba_b=0.4, gba_merged_mean=0.9),
    )
    claims = verdict(made, kept)
    assert [(one.system, one.baseline, one.verdict) for one in claims] == [
        ("dsa's experts", "base", "better"),
        ("gba's experts", "dsa's experts", "no evidence"),
        ("gba/merged/mean", "base", "better"),
        ("dsa's experts", "base", "worse"),
        ("gba's experts", "base", "worse"),
        ("gba/merged/mean", "base", "no evidence"),
    ]
    first, second, agent, *lost = claims
    rows = {name: {i.key: i for i in made if i.model == name} for name in ("base", "dsa/a", "dsa/b")}
    own = {key: item for name in ("dsa/a", "dsa/b") for key, item in rows[name].items() if key[0] == name[-1]}
    row = compare_pair(system("base", rows["base"]), system("dsa", own))[-1]
    assert (first.difference, first.low, first.high, first.p) == (row.difference, row.low, row.high, row.p)
    assert "dsa's experts against base, mean over specialties: better, +" in first.sentence
    assert f"no difference that 240 questions can show ({100 * second.difference:+.1f} [" in second.sentence
    assert (agent.of, agent.recovered.low > 0, agent.recovered.high < 1) == (2, True, True)
    assert "(the best of 2 agents, chosen on these very questions)" in agent.sentence
    assert f"{100 * agent.recovered.share:.0f} % [" in agent.sentence
    assert {one.on for one in lost} == {"the base's own questions"}


def test_the_mean_loss_of_experts_is_that_of_each_question():
    kept = kept_answers(3, base=0.9, dsa_a=0.5, dsa_b=0.7)
    (lost,) = [one for one in verdict(experiment(1, dsa_a=0.8, dsa_b=0.8), kept) if one.n == 60]
    each = [one.difference.difference for name, one in kept_column(kept).items() if name != "base"]
    assert lost.difference == pytest.approx(sum(each) / 2)
    alike = [item for item in kept if item.model != "dsa/b"]
    alike += [replace(item, model="dsa/b") for item in kept if item.model == "dsa/a"]
    (alone,) = [one for one in verdict(experiment(1, dsa_a=0.8, dsa_b=0.8), alike) if one.n == 60]
    found = kept_column(kept)["dsa/a"].difference  # two that answer alike are as one
    for name in ("difference", "low", "high", "p"):
        assert getattr(alone, name) == pytest.approx(getattr(found, name))


@pytest.mark.parametrize("seed", range(6))
def test_where_nothing_differs_nothing_is_claimed(seed):
    same = dict.fromkeys(FULL, 0.3)
    claims = verdict(experiment(seed, n=60, **same), kept_answers(seed, **dict.fromkeys(["base", *FULL], 0.8)))
    assert {one.verdict for one in claims} == {"no evidence"}
    for one in claims:
        assert "better" not in one.sentence
        assert "worse" not in one.sentence
    assert all("these questions do not bound" in one.sentence for one in claims if one.recovered)


def test_the_best_of_several_is_not_surer_than_one_that_was_named_beforehand():
    alone = verdict(experiment(4, dsa_a=0.8, dsa_b=0.8, gba_merged_mean=0.5))
    several = verdict(experiment(4, dsa_a=0.8, dsa_b=0.8, gba_merged_mean=0.5, gba_merged_ties=0.1, gba_merged_ram=0.1))
    one, best = (next(c for c in claims if c.system == "gba/merged/mean") for claims in (alone, several))
    assert (one.difference, one.recovered.share) == (best.difference, best.recovered.share)
    assert best.high - best.low > one.high - one.low
    assert best.recovered.high - best.recovered.low > one.recovered.high - one.recovered.low
    assert (one.of, best.of) == (1, 3)
    assert best.p == pytest.approx(min(1, 3 * one.p))


def test_a_rejected_merge_that_answers_more_is_told_and_never_the_best():
    made = experiment(5, dsa_a=0.8, dsa_b=0.8, gba_merged_mean=0.4)
    made += [
        replace(item, model="gba/merged/ties.rejected") for item in experiment(6, x_y_z=0.75) if item.model != "base"
    ]
    told = [one for one in verdict(made) if "/merged/" in one.system]
    assert [one.system for one in told] == ["gba/merged/mean", "gba/merged/ties.rejected, which the gates rejected,"]
    assert (told[1].baseline, told[1].verdict) == ("gba/merged/mean", "better")
    lower = [replace(item, model="gba/merged/ties") for item in made if item.model.endswith("rejected")]
    lower = [item for item in made if not item.model.endswith("rejected")] + lower
    assert [one.system for one in verdict(lower) if "/merged/" in one.system] == ["gba/merged/ties"]


def test_where_the_gates_let_nothing_through_the_best_of_what_they_rejected_stands_next_to_the_base():
    made = experiment(5, dsa_a=0.8, dsa_b=0.8)
    other = [item for item in experiment(6, x_y_z=0.75) if item.model != "base"]
    made += [replace(item, model="gba/merged/ties.rejected") for item in other]
    (told,) = [one for one in verdict(made) if "/merged/" in one.system]
    assert (told.system, told.baseline) == ("gba/merged/ties.rejected, which the gates rejected,", "base")


def test_what_correction_takes_back_is_not_called_invisible():
    claim = Claim("agent", "base", "a", 100, 0.1, 0.01, 0.19, 0.2, 0.04, p_holm=0.2)
    assert claim.sentence.endswith(
        "no difference that is shown once all of these lines are corrected for (+10.0 [+1.0, +19.0] points)"
    )


def test_routers_are_no_agents_and_without_experts_there_is_no_verdict():
    made = experiment(7, dsa_a=0.8, dsa_b=0.8)
    routed = [replace(i, model="dsa/router/oracle", tags={"sent_to": "a"}) for i in made if i.model == "dsa/a"]
    assert len(verdict(made + routed)) == 1
    assert verdict([item for item in made if item.model == "base"]) == []
    assert verdict([item for item in made if item.model != "base"]) == []
    assert verdict_text([]) == ""
    partly = [item for item in made if item.model != "dsa/b" or item.specialty == "b"]  # not asked everything
    assert verdict(partly) == []


def test_what_is_stored_is_json_that_any_reader_takes():
    claims = verdict(experiment(8, n=4, dsa_a=0.5, dsa_b=0.5, gba_merged_mean=0.5))
    assert any(math.isinf(one.detectable) or (one.recovered and math.isinf(one.recovered.low)) for one in claims)
    held = json.loads(verdict_json(claims), parse_constant=lambda name: pytest.fail(name))
    assert [row["sentence"] for row in held] == [one.sentence for one in claims]
    assert {row["system"] for row in held} == {one.system for one in claims}


def test_a_share_is_told_only_where_it_is_bounded():
    claim = Claim(
        "agent", "base", "a", 100, 0.1, 0.05, 0.15, 0.04, 0.001, recovered=Share(0.5, 0.21, 0.84), verdict="better"
    )
    assert claim.sentence == (
        "agent against base, a: better, +10.0 [+5.0, +15.0] points; 50 % [21, 84] of the experts' gain"
    )
    unbounded = replace(claim, recovered=Share(0.5, 0.2, math.inf))
    assert unbounded.sentence.endswith("; what share of the experts' gain that is, these questions do not bound")


def test_the_column_is_written_beside_the_mean_and_not_into_it():
    made, kept = experiment(9, n=20, dsa_a=0.8, dsa_b=0.8), kept_answers(3, n=20, base=0.9, dsa_a=0.5)
    column, table = kept_column(kept), matrix(made)
    right = {name: [i.completion == completion(True) for i in kept if i.model == name] for name in ("base", "dsa/a")}
    expected = paired_difference(right["base"], right["dsa/a"])
    assert column["dsa/a"].difference == expected
    lines = [line.split(",") for line in matrix_csv(table, column).splitlines()]
    plain = [line.split(",") for line in matrix_csv(table).splitlines()]
    assert [line[: len(plain[0])] for line in lines] == plain
    assert lines[0][-7:] == [
        f"kept/{n}" for n in ("accuracy", "low", "high", "n", "difference", "difference_low", "difference_high")
    ]
    by_model = {line[0]: line[-7:] for line in lines[1:]}
    assert by_model["base"][4:] == ["", "", ""]
    assert [float(value) for value in by_model["dsa/a"][4:]] == pytest.approx(
        [expected.difference, expected.low, expected.high], abs=1e-6
    )
    assert by_model["dsa/b"] == [""] * 7  # it was not asked
    text = matrix_text(table, kept=column).splitlines()
    assert text[0].split()[-2:] == ["macro", "kept"]
    assert text[1].endswith("n = 20")
    assert f"{100 * sum(right['dsa/a']) / 20:.1f}, {100 * expected.difference:+.1f} [" in text[3]
    assert matrix_text(table) == matrix_text(table, kept={})
    labels = [label.get_text() for label in matrix_figure(table, kept=column).axes[0].get_xticklabels()]
    assert labels[-2:] == ["macro", "kept\nn = 20"]


def test_the_base_must_be_among_those_that_were_asked():
    with pytest.raises(ValueError, match="has no answers of 'base'"):
        kept_column(kept_answers(1, dsa_a=0.5))
    assert kept_column([]) == {}
