# Reference: fractions by hand, the comparison of two models, and the verdict on the same answers.
# Run: pytest tests/evaluation/test_headroom.py
import csv
import io
import json
import random

import pytest

from evaluation.agents import cast
from evaluation.costs import costs_of, costs_table
from evaluation.headroom import UNBOUNDED, headroom, headroom_csv, headroom_table, headroom_text, seeds_table, told
from evaluation.pairwise import MACRO, compare_pair
from evaluation.predictions import Prediction
from evaluation.shares import share_over_seeds
from evaluation.tables import report
from evaluation.verdict import verdict

ANSWER = {True: "<think>x</think><answer>A</answer>", False: "<think>x</think><answer>B</answer>"}


def answers(model, specialty, rights, each=1):
    """So many questions of each patient."""
    return [
        Prediction(model, specialty, f"q{i}", f"p{i // each}", "neutral", ("yes", "no"), "A", ANSWER[bool(right)])
        for i, right in enumerate(rights)
    ]


def share(right, n=100):
    return [i < right for i in range(n)]


def rows(found):
    return [row for of in found.by_model.values() for row in of]


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
    assert found.experts == "gba's experts"  # the last experiment with an expert of each
    got = {(row.model, row.specialty): (row.headroom[0], row.cost[0], row.share.share) for row in rows(found)}
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
    lines = headroom_text(found).splitlines()
    assert lines[0].startswith("recovered of what gba's experts gain over the base (+40.0 [")
    assert lines[2].split()[0] == "integrate/agent"
    assert lines[2].endswith("b 75.0")
    stored = list(csv.DictReader(io.StringIO(headroom_csv(found))))
    for line, row in zip(stored, rows(found), strict=True):
        for name, numbers in (("headroom", row.headroom), ("cost", row.cost), ("share", row.share.interval)):
            assert [float(line[f"{name}{end}"]) for end in ("", "_low", "_high")] == list(numbers)
        assert (line["model"], line["specialty"], int(line["n"])) == (row.model, row.specialty, row.n)
    assert headroom_table(found).markdown in report(made(SCORES), (), ())


def test_one_place_tells_who_is_who():
    agents = ["x/merged/m", "x/merged/m.rejected", "x/merged/a", "y/agent"]  # a method may be called like a specialty
    others = ["x/router/learned", "z/router/oracle", "elder"]
    experts = ["z/a", "z/b", "x/a", "x/b", "y/a"]  # y has none of b
    names = ["base", *experts, *agents, "x/router/oracle", *others]
    found = cast(made({name: {"a": 10, "b": 20} for name in names}, n=30))
    assert (found.base.name, list(found.stages), found.last.name) == (
        "base",
        ["z's experts", "x's experts"],
        "x's experts",
    )
    assert (list(found.agents), list(found.others)) == (agents, others)


@pytest.mark.parametrize("seed", range(4))
def test_a_report_has_one_interval_for_one_thing(seed):
    rng = random.Random(seed)
    chances = {"base": 0.2, "x/a": 0.8, "x/b": 0.7, "x/merged/m": 0.5}
    items = [i for m, p in chances.items() for s in "ab" for i in answers(m, s, [rng.random() < p] * 2, each=2)]
    for number in range(1, 40):
        for model, p in chances.items():
            for specialty in "ab":
                items += [
                    Prediction(
                        model, specialty, f"r{number}.{k}", f"r{number}", "neutral", ("yes", "no"), "A", ANSWER[of]
                    )
                    for k, of in enumerate((rng.random() < p, rng.random() < p))
                ]
    found = headroom(items)
    by_column = {row.specialty: row for row in rows(found)}
    who = cast(items)
    for name, first, second in (("headroom", who.base, who.last), ("cost", who.last, who.agents["x/merged/m"])):
        for compared in compare_pair(first, second):
            if compared.specialty in by_column:
                expected = (compared.difference, compared.low, compared.high)
                assert getattr(by_column[compared.specialty], name) == pytest.approx(expected)
    (claim,) = [one for one in verdict(items) if one.system == "x/merged/m"]  # the only agent: nothing was chosen
    assert claim.recovered == by_column[MACRO].share
    assert claim.recovered.bounded


@pytest.mark.parametrize(("gain", "bounded"), [(0, False), (3, False), (-20, False), (30, True)])
def test_words_stand_where_the_questions_do_not_bound_the_share(gain, bounded):
    found = headroom(made({"base": {"a": 40}, "x/a": {"a": 40 + gain}, "x/merged/m": {"a": 45}}))
    (row,) = rows(found)
    assert row.share.bounded == bounded
    assert (UNBOUNDED in headroom_text(found)) != bounded
    assert (UNBOUNDED in headroom_table(found).markdown) != bounded
    assert headroom_csv(found).splitlines()[1].endswith(",,,") != bounded
    assert row.headroom[0] == pytest.approx(gain / 100)


@pytest.mark.parametrize("without", ["base", "x/a", "x/merged/m"])
def test_nothing_is_told_where_a_part_is_missing(without):
    scores = {"base": {"a": 20}, "x/a": {"a": 80}, "x/merged/m": {"a": 50}}
    assert headroom(made(scores)) is not None
    assert headroom(made({name: of for name, of in scores.items() if name != without})) is None


@pytest.mark.parametrize("told_of", [headroom, verdict, lambda items: report(items, (), ())])
def test_models_that_answered_other_questions_are_refused(told_of):
    items = made({"base": {"a": 20}, "x/a": {"a": 80}, "x/merged/m": {"a": 50}, "x/merged/other": {"a": 50}})
    with pytest.raises(ValueError, match="'x/merged/other' were asked different questions"):
        told_of(items[:-1])


def test_over_seeds_stand_the_shares_of_the_means_with_their_interval():
    scores = [SCORES | {"integrate/agent": {"a": right, "b": 70}} for right in (60, 40, 53)]
    seeds = [headroom(made(of)) for of in scores]
    lines = seeds_table(seeds).splitlines()
    assert lines[0] == f"| recovered, % | {MACRO} | a | b | least |"
    shares = {
        MACRO: share_over_seeds([0.35, 0.25, 0.315], [0.4] * 3),
        "a": share_over_seeds([0.4, 0.2, 0.33], [0.4] * 3),
    }
    cells = next(line for line in lines if "integrate" in line).split(" | ")
    assert cells[1:3] == [told(shares[MACRO]), told(shares["a"])]
    assert cells[3] == "not bounded by these seeds"  # 75 % in all of them
    assert cells[4] == f"a {100 * 0.31 / 0.4:.1f} |"


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
    assert "| old | 1 | 3 | - | - | 50 |" in costs_table(found).markdown
    # a sweep makes what is the same for all seeds once, in a folder beside theirs
    (tmp_path / "shared").mkdir()
    (tmp_path / "dsa").rename(tmp_path / "shared" / "dsa")
    for home, seeds, shared in (("/then", "runs/seed0", "runs/shared"), ("/then", "runs/seed0", "/then/runs/shared")):
        places = {"sft": {"name": "dsa", "runs_dir": shared}, "former": {"name": "old", "runs_dir": seeds}}
        asked = {"runs_dir": seeds, "working_folder": home, "required": places}
        (tmp_path / "seed0" / "agent").mkdir(parents=True, exist_ok=True)
        (tmp_path / "seed0" / "agent" / "experiment.json").write_text(json.dumps(asked))
        assert [(c.experiment, c.cpu_s) for c in costs_of(tmp_path / "seed0" / "agent")] == [("dsa", 12.0)]
    (tmp_path / "old" / "a" / "timings.json").write_text("{")
    with pytest.raises(ValueError, match=r"timings\.json: is damaged"):
        costs_of(tmp_path / "agent")
