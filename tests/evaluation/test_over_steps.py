# Reference: means by hand of made event files, and Student's interval written out.
# Run: pytest tests/evaluation/test_over_steps.py
import csv
import io
import math

import numpy as np
import pytest
from scipy.special import stdtrit
from torch.utils.tensorboard import SummaryWriter

from evaluation.over_steps import arms_of, as_csv, between, changes, figure, main, over_optimised, table


def run(folder, accuracy, terms, every=10):
    """A run that was validated every so many batches; a term has a value per batch."""
    folder.mkdir(parents=True)
    (folder / "timings.json").write_text("{}")
    with SummaryWriter(str(folder)) as writer:
        for i, value in enumerate(accuracy):
            writer.add_scalar(f"val/accuracy/{folder.name}", value, every * i)
        for name, values in {**terms, **({"total": [9.0] * 20, "unknown": [0.0] * 20} if terms else {})}.items():
            for step, value in enumerate(values):
                writer.add_scalar(f"train/reward/{name}", value, step)


def arm(root, name, falls, rises, seeds=(0, 1, 2, 3)):
    """Over 20 batches accuracy changes by `falls` and the judge's reward by `rises`, a little more with each seed."""
    folders = []
    for seed in seeds:
        folder = root / f"seed{seed}" / name
        for specialty, shift in (("a", 0.1), ("b", -0.1)):
            judge = [0.4] * 10 + [0.4 + rises + 0.01 * seed + shift] * 10
            accuracy = [0.8, 0.7, 0.8 + falls - 0.01 * seed + shift]
            run(folder / specialty, accuracy, {"judge": judge, "correct": [0.5] * 20})
        folders.append(folder)
    return folders


def half_width(values):
    return stdtrit(len(values) - 1, 0.975) * np.std(values, ddof=1) / math.sqrt(len(values))


def test_a_reward_that_rises_while_accuracy_falls_is_called_over_optimised(tmp_path, capsys):
    folders = [*arm(tmp_path, "judge", falls=-0.2, rises=0.3), *arm(tmp_path, "rules", falls=0.1, rises=0.3)]
    assert main([*map(str, folders), "--out", str(tmp_path / "out")]) == 0
    told = capsys.readouterr().out
    assert "- judge: judge over-optimised: paid more, while accuracy fell." in told
    assert "- rules: no reward is shown to be over-optimised." in told
    half = 100 * half_width([0.0, 0.01, 0.02, 0.03])
    change = f"| judge | change, points | -21.5 [{-21.5 - half:.1f}, {-21.5 + half:.1f}] | +0.0 | +31.5 [+"
    assert change in told
    assert "| judge | before | 80.0 | - | - |" in told
    assert "| judge | 0 to 10 | 70.0 | 50.0 | 40.0 |" in told
    assert "| judge | 10 to 20 | 58.5 | 50.0 | 71.5 |" in told
    assert "Seeds: judge 4, rules 4." in told
    assert (tmp_path / "out" / "over_steps.md").read_text() == told
    assert (tmp_path / "out" / "over_steps.png").read_bytes().startswith(b"\x89PNG")


def test_changes_are_over_seeds_with_student_s_interval(tmp_path):
    (courses,) = arms_of(arm(tmp_path, "judge", falls=-0.2, rises=0.3)).values()
    found = changes(courses)
    half = half_width([0.0, 0.01, 0.02, 0.03])
    accuracy = found["accuracy"]
    assert accuracy.mean == pytest.approx(-0.215, abs=1e-6)
    assert (accuracy.low, accuracy.high) == pytest.approx((-0.215 - half, -0.215 + half), abs=1e-6)
    assert found["judge"].mean == pytest.approx(0.315, abs=1e-6)
    assert math.isnan(found["correct"].low)  # all seeds alike
    assert over_optimised(found["judge"], accuracy)
    assert not over_optimised(accuracy, accuracy)
    assert not over_optimised(found["correct"], accuracy)


def test_what_no_reward_taught_is_left_out(tmp_path, capsys):
    folders = arm(tmp_path, "judge", falls=0.1, rises=0.3)
    run(tmp_path / "seed0" / "dsa" / "a", [0.1, 0.5, 0.8], {})
    assert main([*map(str, folders), str(tmp_path / "seed0" / "dsa")]) == 0
    assert "Seeds: judge 4. " in capsys.readouterr().out
    assert main([str(tmp_path / "seed0" / "dsa")]) == 2
    assert "no reward taught any of these experiments" in capsys.readouterr().err


def test_one_seed_shows_nothing(tmp_path, capsys):
    assert main([str(*arm(tmp_path, "judge", falls=-0.2, rises=0.3, seeds=[0]))]) == 0
    assert "one seed shows no over-optimisation, whatever its numbers" in capsys.readouterr().out


def test_a_reward_counts_between_the_validations_that_it_lies_between():
    points = [(step, float(step)) for step in range(20)]
    assert between(points, (0, 10, 20)).tolist() == [4.5, 14.5]
    with pytest.raises(ValueError, match="no rewards are logged between the validation at step 30 and the one before"):
        between(points, (0, 20, 30))


def test_all_numbers_of_all_seeds_are_written(tmp_path):
    arms = arms_of(arm(tmp_path, "judge", falls=-0.2, rises=0.3, seeds=(0, 1)))
    rows = list(csv.DictReader(io.StringIO(as_csv(arms))))
    assert len(rows) == 2 * (3 + 2 * 2)
    last = [float(row["value"]) for row in rows if (row["quantity"], row["step"]) == ("judge", "20")]
    assert last == pytest.approx([0.7, 0.71])


def test_an_arm_without_a_term_has_a_dash_and_no_line(tmp_path):
    folders = arm(tmp_path, "judge", falls=0.0, rises=0.1, seeds=(0, 1))
    for seed in (0, 1):
        folder = tmp_path / f"seed{seed}" / "bare"
        run(folder / "a", [0.5, 0.6 + 0.1 * seed, 0.7], {"correct": [0.5] * 20})
        folders.append(folder)
    arms = arms_of(folders)
    assert "| bare | 0 to 10 | 65.0 | 50.0 | - |" in table(arms)
    accuracy, correct, judge = figure(arms).axes
    assert [len(axes.lines) for axes in (accuracy, correct, judge)] == [6, 6, 3]  # two seeds and their mean, by arm


def two_of_one(root):
    folder = arm(root, "judge", 0.0, 0.1, seeds=[0])[0]
    return [folder, folder]


def other_steps(root):
    run(root / "x" / "rules" / "a", [0.5, 0.5, 0.5], {"correct": [0.5] * 20}, every=5)
    return [*arm(root, "judge", 0.0, 0.1, seeds=[0]), root / "x" / "rules"]


def other_terms(root):
    run(root / "x" / "judge" / "a", [0.5, 0.5, 0.5], {"correct": [0.5] * 20})
    return [*arm(root, "judge", 0.0, 0.1, seeds=[0]), root / "x" / "judge"]


def unlike_specialties(root):
    run(root / "judge" / "a", [0.5, 0.5, 0.5], {"correct": [0.5] * 20})
    run(root / "judge" / "b", [0.5, 0.5], {"correct": [0.5] * 20})
    return [root / "judge"]


def validated_once(root):
    run(root / "judge" / "a", [0.5], {"correct": [0.5] * 20})
    return [root / "judge"]


def nothing(root):
    return [root]


@pytest.mark.parametrize(
    ("made", "told"),
    [
        (two_of_one, "a folder is given twice"),
        (other_steps, "these were validated at other steps"),
        (other_terms, "seeds of judge were paid by other terms"),
        (unlike_specialties, "its specialties were validated at other steps"),
        (validated_once, "set fit.val_every"),
        (nothing, "has no runs"),
    ],
)
def test_what_does_not_go_together_is_refused(tmp_path, capsys, made, told):
    assert main(list(map(str, made(tmp_path)))) == 2
    assert told in capsys.readouterr().err
