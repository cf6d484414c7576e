# Reference: folders made by hand, as runs leave them. Run: pytest tests/evaluation/test_seeds.py
import csv
import json
import math
from dataclasses import replace

import numpy as np
import pytest

from evaluation.baselines import FILE
from evaluation.compare import main as compare
from evaluation.predictions import Prediction
from evaluation.seeds import differing, facts_of, refuse_no_seeds
from evaluation.summary import main as summarise

OPTIONS = ("enlarged", "normal", "small")
SETTINGS = {
    "name": "rl",
    "seed": 0,
    "runs_dir": "runs",
    "workers": 1,
    "module": {"class_path": "m.GBA", "init_args": {"learning_rate": 0.1, "lora_seed": 0}},
    "specialties": {"skin": {"class_path": "d.Skin", "init_args": {"root": "data", "split_seed": 0}}},
    "required": {"dsa": {"name": "dsa", "seed": 0, "trainer": {"max_steps": 5}}},
}


def said(i, right, model="base", specialty="skin", **changes):
    text = f"<think>the heart is wide</think><answer>{'A' if right else 'B'}</answer>"
    made = Prediction(model, specialty, f"q{i}", f"p{i // 2}", "neutral", OPTIONS, "A", text)
    return replace(made, **changes)


def folder(path, rows, seed=0, settings=SETTINGS, rows_sha256="d0", training=None, **changes):
    """An experiment's folder as a run leaves it."""
    (path / "evaluation").mkdir(parents=True)
    (path / "skin").mkdir()
    (path / "evaluation/predictions.jsonl").write_text("".join(row.to_json() + "\n" for row in rows), "utf-8")
    if settings is not None:
        beneath = {"dsa": settings["required"]["dsa"] | {"seed": seed}}
        whole = settings | {"seed": seed, "runs_dir": str(path.parent), "required": beneath} | changes
        (path / "experiment.json").write_text(json.dumps(whole), "utf-8")
        (path / "skin/provenance.json").write_text(json.dumps({"data_sha256": rows_sha256}), "utf-8")
    if training is not None:
        (path / "evaluation" / FILE).write_text(json.dumps(training), "utf-8")
    return path


def answers(rate, seed, n=40, models=("base",), spread=0.0, specialties=("skin",)):
    rng = np.random.default_rng([seed, int(1000 * rate)])
    of_seed = rate + spread * rng.normal()
    return [said(i, rng.random() < of_seed, m, s) for m in models for s in specialties for i in range(n)]


def method(path, rate, seeds=(0, 1, 2), **options):
    return [folder(path / f"seed{seed}" / path.name, answers(rate, seed, **options), seed) for seed in seeds]


def ran(command, words, capsys):
    code = command([str(word) for word in words])
    printed = capsys.readouterr()
    return code, printed.out, printed.err


# -- seeds or not --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        (
            {"module": {"class_path": "m.GBA", "init_args": {"learning_rate": 0.2}}},
            "module.init_args.learning_rate 0.1",
        ),
        ({"module": {"class_path": "m.SFT", "init_args": {"learning_rate": 0.1}}}, "'m.GBA' and 'm.SFT'"),
        ({"rows_sha256": "d1"}, "skin.data_sha256 'd0' and 'd1'"),
        ({"specialties": {"skin": {"init_args": {"split_seed": 1}}}}, "split_seed 0 and 1"),
        ({"precision": "bf16"}, "precision 'not stated' and 'bf16'"),
        ({"required": {"dsa": {"seed": 1, "trainer": {"max_steps": 6}}}}, "required.dsa.trainer.max_steps 5 and 6"),
    ],
)
def test_what_differs_by_more_than_its_seed_is_no_seed(tmp_path, capsys, changes, told):
    a = folder(tmp_path / "a", answers(0.5, 0), 0)
    b = folder(tmp_path / "b", answers(0.5, 1), 1, **changes)
    code, out, _ = ran(summarise, [a, b], capsys)
    assert code == 0
    assert "±" not in out
    assert f"{b} is no seed of {a}: " in out
    assert told in out
    code, _, err = ran(compare, ["--by", "seed", a, b, "--", a, b], capsys)
    assert code == 2
    assert told in err


def test_what_changes_no_result_may_differ(tmp_path):
    def merge(pictures):
        return {"merge": {"class_path": "c.Merge", "init_args": {"gate": "warn", "pictures": pictures}}}

    a = folder(tmp_path / "a", answers(0.5, 0), 0, callbacks=merge(True))
    skin = {"skin": {"class_path": "d.Skin", "init_args": {"root": "data", "split_seed": 0, "num_workers": 4}}}
    machine = {"workers": 4, "name": "again", "description": "x", "threads": 2}
    b = folder(tmp_path / "b", answers(0.5, 1), 1, **machine, specialties=skin, callbacks=merge(False))
    assert differing(facts_of(a), facts_of(b)) == {}
    assert refuse_no_seeds([facts_of(a), facts_of(b / "evaluation")]) == ""


def test_the_same_seed_counts_once(tmp_path, capsys):
    a = folder(tmp_path / "a", answers(0.5, 0), 0)
    b = folder(tmp_path / "b", answers(0.5, 1), 0)
    code, _, err = ran(summarise, [a, b], capsys)
    assert (code, "have the same seed (" in err, "seed 0" in err) == (2, True, True)
    code, _, err = ran(summarise, [a, a], capsys)
    assert (code, "named twice" in err) == (2, True)


def test_experiments_of_other_programs_are_averaged_with_a_word_of_caution(tmp_path, capsys):
    a, b = (folder(tmp_path / name, answers(0.5, i), settings=None) for i, name in enumerate("ab"))
    code, out, _ = ran(summarise, [a, b], capsys)
    assert code == 0
    assert "±" in out
    assert "whether only the seed differs was not checked" in out
    c = folder(tmp_path / "c", answers(0.5, 2), 2)
    _, out, _ = ran(summarise, [a, b, c], capsys)
    assert "is no seed of" in out
    assert "experiment.json not there and there" in out


def test_200_questions_and_3_are_no_seeds(tmp_path, capsys):
    a, b, c = (folder(tmp_path / f"s{i}", answers(0.5, i, n=n), i) for i, n in enumerate((200, 3, 200)))
    code, out, _ = ran(summarise, [a, b, c], capsys)
    assert code == 0
    assert f"Mean ± standard deviation over 2 seeds: {a}, {c}." in out
    assert f"{b} is no seed of {a}: " in out
    assert "different questions (197 only the former, 0 only the latter" in out
    mean = np.mean([np.mean([r.completion.endswith("A</answer>") for r in answers(0.5, i, n=200)]) for i in (0, 2)])
    assert f"| base | {100 * mean:.1f} ± " in out


def test_adapters_that_are_examined_are_seeds_by_what_they_were_trained_with(tmp_path, capsys):
    examined = {"name": "evaluate", "seed": 0, "module": None, "specialties": {}, "required": {"dsa": {}}}
    found = []
    for seed, rate in ((0, 0.1), (1, 0.1), (2, 0.2)):
        module = {"class_path": "m.GBA", "init_args": {"learning_rate": rate}}
        trained = folder(tmp_path / f"seed{seed}/rl", answers(0.5, seed), seed, module=module)
        adapters = [str(trained / "skin")]
        made = folder(tmp_path / f"seed{seed}/medx", answers(0.5, seed), settings=examined, adapters=adapters)
        found.append(made)
    code, out, _ = ran(summarise, found, capsys)
    assert code == 0
    assert "over 2 seeds" in out
    assert "adapters[0].module.init_args.learning_rate 0.1 and 0.2" in out
    gone = folder(tmp_path / "gone", answers(0.5, 4), settings=examined, adapters=[str(tmp_path / "nowhere/skin")])
    assert "adapters[0].path" in differing(facts_of(found[0]), facts_of(gone))


@pytest.mark.parametrize("text", ["{", "[]", "[" * 100_000])
def test_damaged_settings_are_named(tmp_path, capsys, text):
    a = folder(tmp_path / "a", answers(0.5, 0), 0)
    (a / "experiment.json").write_text(text)
    code, _, err = ran(summarise, [a], capsys)
    assert code == 2
    assert f"{a / 'experiment.json'}: " in err
    assert err.count("\n") == 1


# -- summary -------------------------------------------------------------------------------------------------------


def test_a_model_without_a_mean_over_specialties_has_none(tmp_path, capsys):
    # the expert was asked about skin alone: no macro mean, which is not a mean of 0
    found = []
    for seed in (0, 1):
        rows = answers(0.5, seed, specialties=("skin", "brain")) + answers(0.9, seed, models=("expert",))
        found.append(folder(tmp_path / f"s{seed}", rows, seed))
    code, out, _ = ran(summarise, found, capsys)
    assert code == 0
    [line] = [line for line in out.split("\n\n")[2].splitlines() if line.startswith("| expert |")]
    assert line.endswith("| - | - |")


def test_unequal_questions_within_one_experiment_are_one_line(tmp_path, capsys):
    a = folder(tmp_path / "a", answers(0.5, 0, n=6) + answers(0.5, 0, n=4, models=("expert",)))
    code, _, err = ran(summarise, [a], capsys)
    assert code == 2
    assert "were asked different questions" in err
    assert err.count("\n") == 1


def test_stages_are_compared_over_all_answers_with_what_could_be_seen(tmp_path, capsys):
    rows = answers(0.3, 0, n=6) + answers(0.9, 0, n=6, models=("sft/skin",)) + answers(0.9, 1, n=6, models=("rl/skin",))
    rows += [replace(row, guideline="bayesian") for row in rows]
    code, out, _ = ran(summarise, [folder(tmp_path / "a", rows)], capsys)
    assert code == 0
    assert "| before | after | specialty | difference, points | visible, points | p (by patient) |" in out
    lines = [line.split(" | ") for line in out.splitlines() if line.startswith(("| base | sft", "| sft/skin | rl"))]
    assert len(lines) == 2
    assert {line[4] for line in lines} == {"none"}  # three patients


# -- baselines -----------------------------------------------------------------------------------------------------


def test_one_letter_and_no_picture_stand_beside_every_score(tmp_path, capsys):
    # gold is A everywhere; of the training rows B is the commonest, which scores 0 here
    rows = answers(0.5, 0, n=20)
    blind = [replace(said(i, i < 5), protocol={"image": "none"}) for i in range(20)]
    other = answers(0.8, 1, n=20, models=("expert",))
    a = folder(tmp_path / "a", [*rows, *other, *blind], 0, training={"skin": {"A": 3, "B": 5}})
    code, out, _ = ran(summarise, [a], capsys)
    assert code == 0
    assert "| one letter | 0.0 (B) |" in out
    assert "| base, no picture | 25.0 |" in out
    code, out, _ = ran(compare, [a], capsys)
    assert code == 0
    assert "| 0.0 | 25.0 / not measured |" in out
    assert "No picture is measured by callbacks.evaluate.init_args.image=[shown,none]" in out
    assert "upper bound" not in out
    (a / "evaluation" / FILE).unlink()
    code, out, _ = ran(compare, [a], capsys)
    assert "| ≤ 100.0 | 25.0 / not measured |" in out
    assert "an upper bound, as training rows are not known" in out
    (a / "evaluation" / FILE).write_text('{"skin": {"A": -1}}')
    code, _, err = ran(compare, [a], capsys)
    assert (code, "is not a whole number above 0" in err) == (2, True)


# -- methods over seeds --------------------------------------------------------------------------------------------


def test_two_methods_over_seeds(tmp_path, capsys):
    a, b = method(tmp_path / "sft", 0.4, n=100), method(tmp_path / "rl", 0.7, seeds=(0, 1, 2, 3), n=100)
    out = tmp_path / "out"
    code, printed, _ = ran(compare, ["--by", "seed", *a, "--out", out, "--", *b], capsys)
    assert code == 0
    [row] = list(csv.DictReader((out / "compare.csv").open()))
    assert (row["baseline"], row["system"], row["seeds_a"], row["seeds_b"]) == ("sft:base", "rl:base", "3", "4")
    means = [
        np.mean([[item.completion.endswith("A</answer>") for item in answers(rate, s, n=100)] for s in range(count)])
        for rate, count in ((0.4, 3), (0.7, 4))
    ]
    assert (float(row["accuracy_a"]), float(row["accuracy_b"])) == pytest.approx(means)
    assert float(row["difference"]) == pytest.approx(means[1] - means[0])
    assert row["verdict"] == "better"
    assert (row["n"], row["n_clusters"]) == ("100", "50")
    assert 1 <= float(row["df"]) <= 5
    parts = [float(row[name]) for name in ("se_seed", "se_patient", "se_item")]
    t = float(row["difference"]) / math.hypot(*parts)
    assert t > 3
    assert "crossed, both taken for samples" in printed
    assert (out / "compare.md").read_text().strip() == printed.strip()
    assert (out / "compare.png").exists()
    assert r"$\pm$" in (out / "compare.tex").read_text()


def test_the_luck_of_seeds_is_no_difference(tmp_path, capsys):
    # seeds spread by 20 points around the same mean: the first of each differ clearly, the methods do not
    a, b = (method(tmp_path / name, rate, n=200, spread=0.2) for name, rate in (("sft", 0.5), ("rl", 0.501)))
    code, out, _ = ran(compare, ["--by", "seed", *a, "--", *b], capsys)
    assert code == 0
    assert "no evidence |" in out
    verdicts = []
    for first, second in zip(a, b, strict=True):
        verdicts.append("no evidence |" in ran(compare, [first, second], capsys)[1])
    assert not all(verdicts)


def test_models_of_one_method_over_seeds_and_specialties(tmp_path, capsys):
    found = []
    for seed in range(5):
        base = answers(0.3, 7, n=60, specialties=("skin", "brain"))  # the base is the same whatever the seed
        expert = answers(0.8, seed, n=60, models=("expert",), specialties=("skin", "brain"))
        found.append(folder(tmp_path / f"seed{seed}", [*base, *expert], seed))
    code, out, _ = ran(compare, ["--by", "seed", *found, "--baseline", "base"], capsys)
    assert code == 0
    lines = [line for line in out.splitlines() if line.startswith("| base | expert |")]
    assert [line.split(" | ")[2] for line in lines] == ["skin", "brain", "all questions", "mean over specialties"]
    assert all(line.endswith("| better |") for line in lines)
    assert ran(compare, ["--by", "seed", *found], capsys)[1] == out  # the first model is the baseline


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--by", "seed", "{a0}", "--", "{b0}", "{b1}"], "got 1 and 2 seeds"),
        (["--by", "seed", "{a0}", "{a0}", "--", "{b0}", "{b1}"], "named twice"),
        (["{a0}", "--", "{b0}"], "a second method needs --by seed"),
        (["--by", "seed", "{a0}", "{a1}"], "nothing to compare with baseline 'base' among base"),
        (["--by", "seed", "{a0}", "{a1}", "--baseline", "x", "--", "{b0}", "{b1}"], "with baseline 'x'"),
        (["--by", "seed", "{a0}", "{a1}", "--", "{c0}", "{c1}"], "different questions"),
        (["--by", "seed", "{a0}", "{a1}", "--", "{a0}", "{a1}"], "gave the very same completions"),
        (["--by", "seed", "{a0}", "{a1}", "--", "{d0}", "{d1}", "--models", "x"], "--models stands behind --"),
        (["--by", "seed", "{a0}", "{a1}", "--", "{d0}", "{d1}"], "model 'expert' is missing in"),
    ],
)
def test_what_cannot_be_compared_over_seeds_is_one_line(tmp_path, capsys, words, message):
    places = {}
    for name, rate, n in (("a", 0.4, 10), ("b", 0.6, 10), ("c", 0.6, 12)):
        places |= {f"{name}{i}": path for i, path in enumerate(method(tmp_path / name, rate, (0, 1), n=n))}
    for seed, models in ((0, ("base", "expert")), (1, ("base",))):
        places[f"d{seed}"] = folder(tmp_path / f"d{seed}", answers(0.5, seed, n=10, models=models), seed)
    code, _, err = ran(compare, [word.format(**places) for word in words], capsys)
    assert code == 2
    assert message in err
    assert err.count("\n") == 1
