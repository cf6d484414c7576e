# Reference: shares by hand from made answers, and the intervals of `evaluation.shares`.
# Run: pytest tests/evaluation/test_ladder.py
import csv
import io
import math
import random

import numpy as np
import pytest
from scipy.special import stdtrit

from evaluation.kept import KEPT
from evaluation.ladder import as_csv, figure, main, rungs_of, table
from evaluation.shares import share_of_gain, share_over_seeds
from tests.evaluation.test_verdict import answers, drawn


def experiment(folder, seed, base, merged, knew=None, n=80, experts=0.85):
    """A finished experiment: base, two experts, and merges by the chances given; base's own questions where `knew`."""
    rng, rows = random.Random(f"{folder.name}{seed}"), []
    for specialty in ("a", "b"):
        rows += answers("base", specialty, drawn(rng, n, base))
        for own in ("a", "b"):
            rows += answers(f"dsa/{own}", specialty, drawn(rng, n, experts if own == specialty else base))
        for method, chance in merged.items():
            rows += answers(f"dsa/merged/{method}", specialty, drawn(rng, n, chance))
    place = folder / "evaluation"
    place.mkdir(parents=True)
    (place / "predictions.jsonl").write_text("".join(row.to_json() + "\n" for row in rows))
    if knew is not None:
        kept = answers("base", KEPT, drawn(random.Random(1), 50, knew), 1)
        (place / "kept.jsonl").write_text("".join(row.to_json() + "\n" for row in kept))
    return folder


def ladder(root, seeds=(0, 1, 2, 3), **options):
    """Three rungs; the merges keep more where the base knew more."""
    rungs = {"whole": (0.3, 0.9, 0.7), "half": (0.28, 0.6, 0.5), "quarter": (0.25, 0.4, 0.35)}
    return [
        experiment(root / f"seed{seed}" / name, seed, base, {"ties": chance, "mean": base}, knew, **options)
        for name, (base, knew, chance) in rungs.items()
        for seed in seeds
    ]


def test_a_ladder_says_what_each_rung_came_to(tmp_path, capsys):
    folders = ladder(tmp_path)
    rungs = rungs_of(folders)
    assert [rung.name for rung in rungs] == ["quarter", "half", "whole"]  # by what the base knew
    assert [len(rung.seeds) for rung in rungs] == [4, 4, 4]
    for rung in rungs:
        gained = np.array([one.agents["ties"] - one.base for one in rung.seeds])
        gain = np.array([one.experts - one.base for one in rung.seeds])
        assert rung.share("ties").share == pytest.approx(gained.mean() / gain.mean())
        assert rung.share("ties").low < rung.share("ties").share < rung.share("ties").high
    shares = [rung.share("ties").share for rung in rungs]
    assert shares == sorted(shares)
    assert main([*map(str, folders), "--out", str(tmp_path / "out")]) == 0
    shown = capsys.readouterr().out
    assert (tmp_path / "out/ladder.md").read_text().strip() == shown.strip() == table(rungs)
    rows = list(csv.DictReader(io.StringIO((tmp_path / "out/ladder.csv").read_text())))
    assert [(row["rung"], row["method"]) for row in rows[:2]] == [("quarter", "ties"), ("quarter", "mean")]
    assert float(rows[0]["share"]) == shares[0]
    assert float(rows[0]["knew"]) == rungs[0].knows
    assert (tmp_path / "out/ladder.png").stat().st_size > 5000
    drawn = figure(rungs).axes[0]
    assert drawn.get_xlabel() == "rung, and accuracy of its base on its own questions, %"
    assert [tick.get_text() for tick in drawn.get_xticklabels()] == [f"{r.name}\n{100 * r.knows:.1f}" for r in rungs]
    ties = next(one for one in drawn.containers if one.get_label() == "ties")
    assert [float(y) for y in ties.lines[0].get_ydata()] == pytest.approx([100 * share for share in shares])


@pytest.mark.parametrize("seed", range(8))
def test_the_interval_over_seeds_is_what_a_test_of_each_share_allows(seed):
    rng = np.random.default_rng(seed)
    gain = rng.normal(0.4, 0.05, 5)
    gained = 0.5 * gain + rng.normal(0, 0.04, 5)
    found = share_over_seeds(gained, gain)
    for share in np.linspace(-1, 2, 301):
        left = gained - share * gain
        held = abs(left.mean()) <= stdtrit(4, 0.975) * left.std(ddof=1) / math.sqrt(5)
        if min(abs(share - found.low), abs(share - found.high)) > 1e-9:
            assert held == (found.low <= share <= found.high)


def test_where_no_gain_is_shown_there_is_a_dash_and_no_point(tmp_path):
    folders = ladder(tmp_path, seeds=(0,), experts=0.3)
    rungs = rungs_of(folders)
    assert all(line.endswith("| - | - |") for line in table(rungs).splitlines()[2:5])
    assert all(row["low"] == "" for row in csv.DictReader(io.StringIO(as_csv(rungs))))
    assert all(len(one.lines[0].get_ydata()) == 0 for one in figure(rungs).axes[0].containers)
    alike = share_over_seeds([0.1, 0.3 - 0.2, 0.1], [0.2] * 3)  # seeds say nothing of others, but for rounding
    assert (alike.share, alike.low, alike.high) == (pytest.approx(0.5), -math.inf, math.inf)
    assert not share_over_seeds([0.1, 0.11], [-0.2, -0.21]).bounded  # a loss is no gain to share


def test_one_seed_has_the_interval_by_patient(tmp_path):
    (rung, *_) = rungs_of(ladder(tmp_path, seeds=(0,)))
    assert rung.share("ties") == share_of_gain(rung.seeds[0].columns["ties"])


def test_without_the_base_s_own_questions_the_specialties_stand_for_them(tmp_path):
    folders = [experiment(tmp_path / name, 0, chance, {"ties": 0.6}) for name, chance in (("x", 0.4), ("y", 0.2))]
    rungs = rungs_of(folders)
    assert [rung.name for rung in rungs] == ["y", "x"]
    assert "| not asked |" in table(rungs)
    assert figure(rungs).axes[0].get_xlabel() == "rung, and accuracy of its base on the specialties, %"


def test_what_cannot_be_compared_is_refused(tmp_path, capsys):
    one = experiment(tmp_path / "one", 0, 0.3, {"ties": 0.5})
    cases = {
        "have others": experiment(tmp_path / "two", 0, 0.3, {"mean": 0.5}),
        "were asked others": experiment(tmp_path / "three", 0, 0.3, {"ties": 0.5}, n=40),
        "in all, or in none": experiment(tmp_path / "four", 0, 0.3, {"ties": 0.5}, 0.9),
        "given twice": tmp_path / "one",
        "needs the base": experiment(tmp_path / "five", 0, 0.3, {}),
    }
    for said, other in cases.items():
        assert main([str(one), str(other)]) == 2
        assert said in capsys.readouterr().err
    assert main([str(tmp_path / "none")]) == 1


def test_one_method_of_two_experiments_has_two_names(tmp_path):
    folder = experiment(tmp_path / "one", 0, 0.3, {"ties": 0.5})
    file = folder / "evaluation/predictions.jsonl"
    again = [line.replace('"dsa/', '"gba/') for line in file.read_text().splitlines() if '"dsa/' in line]
    file.write_text(file.read_text() + "\n".join(again) + "\n")
    (rung,) = rungs_of([folder])
    assert list(rung.seeds[0].agents) == ["dsa/merged/ties", "gba/merged/ties"]
