# Reference: counts by hand from made answers, and the shares and means of `evaluation.shares` and `seed_means`.
# Run: pytest tests/evaluation/test_integration_table.py
import csv
import io
import json
import random

import numpy as np
import pytest
from scipy.special import stdtr, stdtrit
from torch.utils.tensorboard import SummaryWriter

from evaluation.integration import as_csv, main, table
from evaluation.kept import KEPT
from evaluation.seed_models import seeds_of
from evaluation.shares import Outcomes, mean_difference, share_over_seeds
from evaluation.summary import main as summarise
from tests.evaluation.test_verdict import answers, drawn

N = 60
COSTS = {"dsa": (4, 0, 100.0, 500.0), "joined": (50, 320, 40.0, 900.0), "joint": (90, 0, 300.0, 700.0)}


def write_matrix(folder, rows, kept=()):
    place = folder / "evaluation"
    place.mkdir(parents=True)
    (place / "predictions.jsonl").write_text("".join(row.to_json() + "\n" for row in rows))
    if kept:
        (place / "kept.jsonl").write_text("".join(row.to_json() + "\n" for row in kept))


def write_run(folder, name):
    steps, rollouts, cpu_s, peak = COSTS[name]
    folder.mkdir(parents=True)
    timings = {"batches": steps, "rollouts": rollouts, "cpu_s": cpu_s, "memory/peak_mib": peak}
    (folder / "timings.json").write_text(json.dumps(timings))


def rows_of(rng, chances, own=0.9, base=0.3):
    """Row -> chance; experts have `own` on their specialty, and the base's chance on the other."""
    found = []
    for specialty in ("a", "b"):
        found += answers("base", specialty, [i % 10 < 10 * base for i in range(N)])
        for expert in [name for name in chances if name.startswith("dsa/") and name[4:] in "ab"]:
            found += answers(expert, specialty, drawn(rng, N, own if expert[4:] == specialty else base))
        for agent in [name for name in chances if name[4:] not in ("a", "b")]:
            found += answers(agent, specialty, drawn(rng, N, chances[agent]))
    return found


def seed_folders(root, seed, kl=(1.0, 0.2)):
    """Two experts, a merge, an agent joined from them, and one trained jointly, which has no experts beside it."""
    place, rng = root / f"seed{seed}", random.Random(seed)
    for expert in ("a", "b"):
        write_run(place / "dsa" / expert, "dsa")
    write_run(place / "joined" / "agent", "joined")
    write_run(place / "joint" / "agent", "joint")
    (place / "joined" / "experiment.json").write_text(json.dumps({"seed": seed, "required": {"dsa": {"name": "dsa"}}}))
    with SummaryWriter(str(place / "joined" / "agent")) as board:
        for step in range(1, 101):
            for name, last in zip(("a", "b"), kl, strict=True):
                board.add_scalar(f"train/specialty/{name}/kl_nats", last if step >= 90 else 5.0, step)
    chances = {"dsa/a": 0, "dsa/b": 0, "dsa/merged/ties": 0.4, "joined/agent": 0.8}
    kept = [
        row
        for name, right in {"base": 36, "dsa/a": 30, "dsa/b": 24, "joined/agent": 33 + seed % 2}.items()
        for row in answers(name, KEPT, [i < right for i in range(40)], 1)
    ]
    write_matrix(place / "joined", rows_of(rng, chances), kept)
    write_matrix(place / "joint", rows_of(rng, {"joint/agent": 0.6}))
    (place / "joint" / "experiment.json").write_text(json.dumps({"seed": seed, "module": {"learning_rate": 1e-3}}))
    return [place / "joint", place / "joined"]  # in any order


def test_agents_of_several_experiments_stand_beside_each_other(tmp_path, capsys):
    folders = [one for seed in range(5) for one in seed_folders(tmp_path, seed)]
    seeds, unchecked = seeds_of(folders)
    assert unchecked == ""
    assert main([*map(str, folders), "--out", str(tmp_path / "out")]) == 0
    shown = capsys.readouterr().out
    assert (tmp_path / "out/agents.md").read_text().strip() == shown.strip() == table(seeds)
    lines = [line.split(" | ") for line in shown.splitlines()]
    assert [line[0].strip("| ") for line in lines[2:7]] == [
        "base",
        "dsa's experts",
        "joined/agent",
        "joint/agent",
        "dsa/merged/ties",
    ]  # agents by what they answer, the best first
    rows = {(row["model"], row["specialty"]): row for row in csv.DictReader(io.StringIO(as_csv(seeds)))}
    for model in ("joined/agent", "joint/agent", "dsa/merged/ties"):
        gains = [(seed[model].recovered[0].agent - 0.3, seed[model].recovered[0].experts - 0.3) for seed in seeds]
        share = share_over_seeds(*zip(*gains, strict=True))
        row = rows[model, "mean over specialties"]
        assert [float(row[key]) for key in ("share", "share_low", "share_high")] == pytest.approx(share.interval)
        parts = [float(rows[model, specialty]["accuracy"]) for specialty in ("a", "b")]
        assert float(row["accuracy"]) == pytest.approx(np.mean(parts))
    joint = rows["joint/agent", "a"]
    assert float(joint["experts"]) == pytest.approx(
        np.mean([seed["joint/agent"].recovered[1].experts for seed in seeds])
    )
    assert joint["experts"] == rows["joined/agent", "a"]["experts"]  # held against those of its seed


def test_forgetting_distance_and_costs_are_each_agent_s_own(tmp_path):
    seeds, _ = seeds_of([one for seed in range(4) for one in seed_folders(tmp_path, seed)])
    rows = {(row["model"], row["specialty"]): row for row in csv.DictReader(io.StringIO(as_csv(seeds)))}
    agent = rows["joined/agent", "a"]
    lost = [-3 / 40, -2 / 40, -3 / 40, -2 / 40]
    half = stdtrit(3, 0.975) * np.std(lost, ddof=1) / 2
    expected = [np.mean(lost), np.mean(lost) - half, np.mean(lost) + half]
    assert [float(agent[key]) for key in ("forgot", "forgot_low", "forgot_high")] == pytest.approx(expected)
    experts = rows["dsa's experts", "a"]
    assert float(experts["forgot"]) == pytest.approx(-9 / 40)  # the mean of -6 and -12
    assert experts["forgot_low"] == experts["forgot_high"] == ""  # all seeds came out alike
    assert "| -22.5 |" in table(seeds)
    assert "nan" not in table(seeds)
    assert float(agent["kl"]) == pytest.approx(0.6)  # the end of training alone, each specialty once
    assert [float(agent[key]) for key in ("rollouts", "cpu_s", "cpu_s_with_beneath", "peak_mib")] == [320, 40, 240, 900]
    merged, joint = rows["dsa/merged/ties", "a"], rows["joint/agent", "a"]
    assert [merged[key] for key in ("kl", "rollouts", "cpu_s", "forgot")] == [""] * 4
    assert float(merged["cpu_s_with_beneath"]) == float(rows["dsa's experts", "a"]["cpu_s_with_beneath"]) == 200
    assert [float(joint[key]) for key in ("cpu_s", "cpu_s_with_beneath")] == [300, 300]
    assert joint["kl"] == joint["forgot"] == ""
    assert rows["base", "a"]["share"] == ""


def test_a_merge_is_one_row_whatever_the_gates_said_of_it(tmp_path, capsys):
    folders = [one for seed in range(3) for one in seed_folders(tmp_path, seed)]
    file = folders[3] / "evaluation" / "predictions.jsonl"
    before = table(*seeds_of(folders))
    file.write_text(file.read_text().replace("dsa/merged/ties", "dsa/merged/ties.rejected"))
    after = table(*seeds_of(folders))
    assert after == before.replace("dsa/merged/ties ", "dsa/merged/ties (rejected in 1 of 3) ")
    assert summarise([str(folder) for folder in folders[1::2]]) == 0
    shown = capsys.readouterr().out
    assert "Mean ± standard deviation over 3 seeds" in shown
    assert "is no seed of" not in shown
    assert shown.count("dsa/merged/ties (rejected in 1 of 3)") == 2  # of the means, of the shares


def test_one_seed_has_intervals_by_patient(tmp_path, capsys):
    folders = seed_folders(tmp_path, 0)
    assert main([*map(str, folders)]) == 0
    assert "1 seed, 120 questions about 60 patients" in capsys.readouterr().out
    found = seeds_of(folders)[0][0]["joined/agent"].recovered[0].share
    assert found.low < found.share < found.high


def test_against_one_of_them_every_model_is_taken_seed_by_seed(tmp_path, capsys):
    folders = [one for seed in range(4) for one in seed_folders(tmp_path, seed)]
    assert main([*map(str, folders), "--against", "joint/agent", "--out", str(tmp_path / "out")]) == 0
    shown = capsys.readouterr().out
    assert (tmp_path / "out/agents.md").read_text().strip() == shown.strip()
    rows = {
        (row["model"], row["column"]): row
        for row in csv.DictReader(io.StringIO((tmp_path / "out/against.csv").read_text()))
    }
    seeds, _ = seeds_of(folders)
    assert "joint/agent" not in {model for model, _ in rows}
    for model in ("base", "dsa's experts", "joined/agent", "dsa/merged/ties"):
        found = [seed[model].recovered[0].agent - seed["joint/agent"].recovered[0].agent for seed in seeds]
        row = rows[model, "mean over specialties"]
        assert [float(value) for value in row["by_seed"].split()] == pytest.approx(found, abs=1e-6)
        mean, error = np.mean(found), np.std(found, ddof=1) / 2
        half = stdtrit(3, 0.975) * error
        assert [float(row[key]) for key in ("difference", "low", "high")] == pytest.approx(
            [mean, mean - half, mean + half]
        )
        assert float(row["p"]) == pytest.approx(2 * stdtr(3, -abs(mean) / error))
        assert f"| {mean * 100:+.1f} [{100 * (mean - half):+.1f}, {100 * (mean + half):+.1f}] |" in shown
        own = [float(rows[model, specialty]["difference"]) for specialty in ("a", "b")]
        assert np.mean(own) == pytest.approx(mean)


def test_what_was_kept_is_compared_where_both_were_asked(tmp_path, capsys):
    folders = [one for seed in range(3) for one in seed_folders(tmp_path, seed)]
    assert main([*map(str, folders), "--against", "joined/agent", "--out", str(tmp_path / "out")]) == 0
    rows = {
        (row["model"], row["column"]): row
        for row in csv.DictReader(io.StringIO((tmp_path / "out/against.csv").read_text()))
    }
    found = [(-9 + 3) / 40, (-9 + 2) / 40, (-9 + 3) / 40]  # the experts' mean, less what the agent lost
    row = rows["dsa's experts", "own questions"]
    assert float(row["difference"]) == pytest.approx(np.mean(found))
    assert [float(value) for value in row["by_seed"].split()] == pytest.approx(found, abs=1e-6)
    assert ("joint/agent", "own questions") not in rows  # it was not asked


def test_a_router_stands_beside_the_agents(tmp_path):
    folders = [one for seed in range(2) for one in seed_folders(tmp_path, seed)]
    for seed, folder in enumerate(folders[1::2]):
        right = [i % 4 > seed for i in range(N)]  # 45 and 30 of 60
        rows = [row for specialty in ("a", "b") for row in answers("dsa/router/learned", specialty, right)]
        with (folder / "evaluation/predictions.jsonl").open("a") as file:
            file.write("".join(row.to_json() + "\n" for row in rows))
    seeds, _ = seeds_of(folders)
    found = {row["model"]: row for row in csv.DictReader(io.StringIO(as_csv(seeds))) if row["specialty"] == "a"}
    routed = found["dsa/router/learned"]
    assert float(routed["accuracy"]) == pytest.approx((45 + 30) / 120)
    assert [routed[key] for key in ("kl", "rollouts", "cpu_s", "forgot")] == [""] * 4
    assert routed["cpu_s_with_beneath"] == found["dsa's experts"]["cpu_s_with_beneath"]  # it stands on the experts


def test_one_seed_against_another_model_has_no_test(tmp_path, capsys):
    folders = seed_folders(tmp_path, 0)
    assert main([*map(str, folders), "--against", "base"]) == 0
    seed = seeds_of(folders)[0][0]["joined/agent"]
    expected = mean_difference(seed.outcomes, Outcomes.gained)
    told = f"| {100 * expected[0]:+.1f} [{100 * expected[1]:+.1f}, {100 * expected[2]:+.1f}] |"
    line = next(line for line in capsys.readouterr().out.splitlines()[8:] if line.startswith("| joined/agent"))
    assert told in line
    assert line.endswith(f"| - | {100 * expected[0]:+.1f} |")


def test_a_model_that_is_not_there_is_named_with_those_that_are(tmp_path, capsys):
    assert main([*map(str, seed_folders(tmp_path, 0)), "--against", "joint"]) == 2
    told = capsys.readouterr().err
    assert "--against joint: no such model; there are base, dsa's experts, " in told


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda folders: folders[:1], "no experiment has the base and an expert of every specialty"),
        (lambda folders: [*folders, folders[0]], "a folder is given twice"),
        (lambda folders: [*folders[:2], folders[3]], "are no seeds of each other: only one of them has"),
    ],
)
def test_what_cannot_be_put_beside_each_other_is_refused(tmp_path, capsys, spoil, message):
    folders = [one for seed in range(2) for one in seed_folders(tmp_path, seed)]
    assert main([*map(str, spoil(folders))]) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(("file", "name"), [("predictions.jsonl", "a7"), ("kept.jsonl", f"{KEPT}7")])
def test_seeds_of_as_many_other_questions_are_refused(tmp_path, capsys, file, name):
    folders = [one for seed in range(2) for one in seed_folders(tmp_path, seed)]
    for folder in folders[2:]:
        place = folder / "evaluation" / file
        if place.exists():
            place.write_text(place.read_text().replace(f'"question_id": "{name}"', '"question_id": "other"'))
    assert main([*map(str, folders)]) == 2
    assert "were asked different questions: 2 by one of them alone" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["joint", "joined"])
def test_seeds_of_another_setting_are_refused(tmp_path, capsys, name):
    folders = [one for seed in range(3) for one in seed_folders(tmp_path, seed)]
    stated = tmp_path / "seed2" / name / "experiment.json"
    stated.write_text(json.dumps(json.loads(stated.read_text()) | {"module": {"learning_rate": 3e-3}}))
    assert main([*map(str, folders)]) == 2
    told = capsys.readouterr().err
    assert f"seed0/{name} and " in told
    assert f"seed2/{name} are no seeds of one another" in told
    assert "module.learning_rate" in told
    assert "0.003" in told


def test_one_seed_in_two_folders_is_refused(tmp_path, capsys):
    folders = [one for seed in range(2) for one in seed_folders(tmp_path, seed)]
    stated = folders[3] / "experiment.json"
    stated.write_text(stated.read_text().replace('"seed": 1', '"seed": 0'))
    assert main([*map(str, folders)]) == 2
    assert "have the same seed (seed 0)" in capsys.readouterr().err


def test_seeds_without_settings_are_told_to_be_unchecked(tmp_path, capsys):
    folders = [one for seed in range(2) for one in seed_folders(tmp_path, seed)]
    for folder in folders:
        (folder / "experiment.json").unlink()
    assert main([*map(str, folders)]) == 0
    assert capsys.readouterr().out.rstrip().endswith("whether only the seed differs was not checked.")


def test_a_seed_without_one_of_the_experiments_is_named(tmp_path, capsys):
    folders = [one for seed in range(2) for one in seed_folders(tmp_path, seed)]
    again = folders[3].parent / "joined_again"
    folders[3].rename(again)
    assert main([*map(str, folders[:3]), str(again)]) == 2
    assert f"there is no joined from {folders[3].parent}" in capsys.readouterr().err


def test_agents_of_another_base_are_refused(tmp_path, capsys):
    folders = seed_folders(tmp_path, 0)
    other = tmp_path / "seed0" / "other"
    write_matrix(other, rows_of(random.Random(3), {"other/agent": 0.6}, base=0.5))
    assert main([*map(str, folders), str(other)]) == 2
    assert "their bases give different answers" in capsys.readouterr().err
