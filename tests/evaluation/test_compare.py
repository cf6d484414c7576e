# Reference: counts by hand, statsmodels for the tests; run with `pytest tests/evaluation/test_compare.py`.
import csv
import io
import math
from dataclasses import replace

import numpy as np
import pytest

from evaluation.compare import main
from evaluation.comparison_report import HEADER, cells
from evaluation.pairwise import ALL, MACRO, compare_pair, judged
from evaluation.predictions import Prediction
from evaluation.report_files import as_csv, figure, latex, markdown, p_value, points, tex
from evaluation.systems import answer_alike, load_systems, pairs_of, refuse_unlike

OPTIONS = ("enlarged", "normal", "small")


def prediction(i, right, *, model="base", specialty="chest", **changes):
    text = f"<think>the heart is wide</think><answer>{'A' if right else 'B'}</answer>"
    made = Prediction(model, specialty, f"q{i}", f"p{i // 2}", "neutral", OPTIONS, "A", text)
    return replace(made, **changes)


def experiment(folder, predictions):
    path = folder / "evaluation" / "predictions.jsonl"
    path.parent.mkdir(parents=True)
    path.write_text("".join(item.to_json() + "\n" for item in predictions), "utf-8")
    return folder


def rows_of(model, rates, n=200, seed=0, **changes):
    rng = np.random.default_rng(seed)
    return [
        prediction(i, rng.random() < rate, model=model, specialty=specialty, **changes)
        for specialty, rate in rates.items()
        for i in range(n)
    ]


@pytest.fixture
def two(tmp_path):
    """One experiment: an expert that is better on skin, worse on brain and the same on chest."""
    base, expert = ({"skin": 0.3, "brain": 0.8, "chest": 0.5}, {"skin": 0.7, "brain": 0.4, "chest": 0.5})
    return experiment(tmp_path / "run", [*rows_of("base", base), *rows_of("expert", expert, seed=1)])


def test_one_experiment_is_compared_with_its_first_model(two):
    systems = load_systems([two])
    [(first, second)] = pairs_of(systems)
    assert (first.name, second.name) == ("base", "expert")
    rows = judged(compare_pair(first, second))
    assert [row.specialty for row in rows] == ["skin", "brain", "chest", ALL, MACRO]
    assert [row.verdict for row in rows[:3]] == ["better", "worse", "no evidence"]
    skin = rows[0]
    right = [{key: r for key, r in s.right.items() if key[0] == "skin"} for s in (first, second)]
    assert skin.accuracy_a == pytest.approx(sum(right[0].values()) / 200)
    assert skin.only_b == sum(right[1][key] and not right[0][key] for key in right[0])
    assert (skin.n, skin.n_clusters) == (200, 100)
    assert skin.low < skin.difference < skin.high
    assert rows[3].n == 600
    assert rows[3].n_clusters == 300  # p0 of skin and p0 of chest are two patients
    assert rows[4].difference == pytest.approx(sum(row.difference for row in rows[:3]) / 3)
    below = math.sqrt(sum((row.difference - row.low) ** 2 for row in rows[:3])) / 3  # MOVER
    assert rows[4].low == pytest.approx(rows[4].difference - below, abs=1e-12)


def test_the_numbers_equal_statsmodels(two):
    tables = pytest.importorskip("statsmodels.stats.contingency_tables")
    multitest = pytest.importorskip("statsmodels.stats.multitest")
    rows = judged(compare_pair(*load_systems([two])))
    for row in rows[:4]:
        table = [[5, row.only_a], [row.only_b, 7]]
        assert row.p_mcnemar == pytest.approx(tables.mcnemar(table, exact=True).pvalue, abs=1e-9)
    expected = multitest.multipletests([row.p for row in rows], method="holm")[1]
    assert [row.p_holm for row in rows] == pytest.approx(expected.tolist(), abs=1e-9)


def test_a_model_is_no_better_than_itself(two):
    base = load_systems([two], ["base"])[0]
    for row in judged(compare_pair(base, base)):
        assert (row.difference, row.p, row.verdict) == (0.0, 1.0, "no evidence")
        assert -0.1 < row.low < 0 < row.high < 0.1  # not to the last digit: other questions might tell them apart


def test_a_verdict_needs_both_the_corrected_p_and_the_interval(two):
    row = compare_pair(*load_systems([two], ["base", "expert"]))[0]
    assert judged([replace(row, p=0.04, low=0.01)])[0].verdict == "better"
    assert judged([replace(row, p=0.04, low=0.01)] * 2)[0].verdict == "no evidence"  # 2 · 0.04
    assert judged([replace(row, p=0.04, low=-0.01)])[0].verdict == "no evidence"
    assert judged([replace(row, p=0.04, low=-0.2, high=-0.1)])[0].verdict == "worse"
    assert judged([replace(row, p=0.04, low=0.01)], alpha=0.01)[0].verdict == "no evidence"


def test_several_experiments_pair_models_of_one_name(tmp_path):
    names = ("base", "merged/ties")
    a, b = (
        experiment(tmp_path / name, [row for m in names for row in rows_of(m, {"skin": rate}, 40)])
        for name, rate in (("a", 0.3), ("b", 0.6))
    )
    found = [(first.name, second.name) for first, second in pairs_of(load_systems([a, b]))]
    assert found == [("a:base", "b:base"), ("a:merged/ties", "b:merged/ties")]
    found = [(x.name, y.name) for x, y in pairs_of(load_systems([a, b], ["merged/*"]), "a:merged/ties")]
    assert found == [("a:merged/ties", "b:merged/ties")]
    lone = experiment(tmp_path / "c", rows_of("other", {"skin": 0.5}, 40))
    found = [(x.name, y.name) for x, y in pairs_of(load_systems([a, lone], ["base", "other"]))]
    assert found == [("base", "other")]
    for systems, baseline in ((load_systems([a]), "unknown"), (load_systems([a], ["base"]), None)):
        with pytest.raises(ValueError, match="nothing to compare"):
            pairs_of(systems, baseline)
    with pytest.raises(ValueError, match="no model fits 'x\\*'; the experiments have base, merged/ties"):
        load_systems([a], ["x*"])


@pytest.mark.parametrize(
    ("change", "vary", "message"),
    [
        ({"question_id": "q99"}, (), "asked different questions \\(1 only the former, 1 only the latter"),
        ({"guideline": "bayesian"}, (), "asked different questions"),
        ({"options": ("normal", "enlarged", "small"), "answer_letter": "B"}, (), "other options"),
        ({"options": ("enlarged", "normal", "wide")}, ("shuffle",), "other options"),
        ({"answer_letter": "B"}, (), "another right answer"),
        ({"patient_id": "p7"}, (), "another patient"),
        ({"protocol": {"temperature": "0.7"}}, (), "protocols differ: temperature 'not stated' and '0.7'"),
        ({"protocol": {"prompt": "2"}}, ("image",), "protocols differ: prompt 'not stated' and '2'"),
    ],
)
def test_what_is_not_alike_is_refused(tmp_path, change, vary, message):
    rows = rows_of("base", {"skin": 0.5}, 6)
    other = [replace(row, model="other") for row in rows]
    other[3] = replace(other[3], **change)
    first, second = load_systems([experiment(tmp_path / "run", [*rows, *other])])
    with pytest.raises(ValueError, match=message):
        refuse_unlike(first, second, vary)


def test_all_that_must_be_named_to_differ_is_said_at_once(tmp_path):
    rows = [replace(row, prompt_sha256="a") for row in rows_of("base", {"skin": 0.5}, 6)]
    other = [replace(row, model="other") for row in rows]
    other[1] = replace(other[1], protocol={"temperature": "0.7"})
    other[2] = replace(other[2], prompt_sha256="b")
    other[4] = replace(other[4], options=OPTIONS[::-1], answer_letter="C", protocol={"shuffle": "1"})
    [first] = load_systems([experiment(tmp_path / "run", rows)])
    second = replace(first, name="other", model="other", items={i.key: i for i in other})
    with pytest.raises(ValueError, match=r"protocols differ: prompt, as question .*'q2'.* another stem") as error:
        refuse_unlike(first, second, ("image",))
    assert "; shuffle 'not stated' and '1'; temperature 'not stated' and '0.7'; evaluate" in str(error.value)
    assert str(error.value).endswith("--vary prompt shuffle temperature")
    refuse_unlike(first, second, ("prompt", "shuffle", "temperature"))


def test_what_is_named_may_differ(tmp_path):
    rows = rows_of("base", {"skin": 0.5}, 6)
    other = [replace(row, model="blind", protocol={"image": "none"}) for row in rows]
    other += [
        replace(row, model="shuffled", options=OPTIONS[::-1], answer_letter="C", protocol={"shuffle": "1"})
        for row in rows
    ]
    base, blind, shuffled = load_systems([experiment(tmp_path / "run", [*rows, *other])])
    refuse_unlike(base, blind, ("image",))
    refuse_unlike(base, shuffled, ("shuffle",))


def test_answers_given_twice_are_refused(tmp_path):
    rows = rows_of("base", {"skin": 0.5}, 4)
    with pytest.raises(ValueError, match="twice; were two evaluations appended"):
        load_systems([experiment(tmp_path / "run", [*rows, rows[0]])])


def test_the_command_writes_four_files(two, tmp_path, capsys):
    out = tmp_path / "out"
    assert main([str(two), "--out", str(out)]) == 0
    printed = capsys.readouterr().out
    assert "| base | expert | skin | 200 | 100 |" in printed
    assert (out / "compare.md").read_text().strip() == printed.strip()
    table = list(csv.DictReader(io.StringIO((out / "compare.csv").read_text())))
    assert [row["verdict"] for row in table[:3]] == ["better", "worse", "no evidence"]
    assert float(table[0]["difference"]) == pytest.approx(float(table[0]["accuracy_b"]) - float(table[0]["accuracy_a"]))
    assert (out / "compare.tex").read_text().count(r"\\") == 1 + 5
    assert (out / "compare.png").read_bytes().startswith(b"\x89PNG")
    again = {path.name: path.read_bytes() for path in out.iterdir()}
    assert main([str(two), "--out", str(out)]) == 0
    assert {path.name: path.read_bytes() for path in out.iterdir()} == again


@pytest.mark.parametrize("n", [1, 2, 4, 5])
def test_all_of_a_handful_against_none_is_no_evidence(tmp_path, capsys, n):
    rows = [replace(prediction(i, m == "new", model=m), patient_id=f"p{i}") for m in ("old", "new") for i in range(n)]
    assert main([str(experiment(tmp_path / "run", rows)), "--out", str(tmp_path / "out")]) == 0
    printed = capsys.readouterr().out
    assert "| no evidence |" in printed
    assert "| none | 0 / " in printed  # nothing could be seen
    [row] = csv.DictReader((tmp_path / "out/compare.csv").open())
    assert float(row["p"]) == float(row["p_mcnemar"]) == 2 ** (1 - n)
    assert (float(row["difference"]), float(row["high"])) == (1.0, 1.0)
    assert -1 <= float(row["low"]) < 0.1
    assert float(row["low_b"]) < 0.6
    assert float(row["high_a"]) > 0.4


def test_a_model_that_is_asked_without_a_picture_is_its_own_baseline(tmp_path, capsys):
    rows = rows_of("base", {"skin": 0.5}, 8)
    blind = [replace(row, protocol={"image": "none"}) for row in rows_of("base", {"skin": 0.4}, 8, seed=1)]
    run = experiment(tmp_path / "run", [*rows, *blind])
    assert main([str(run), "--models", "base", "base@*", "--vary", "image"]) == 0
    share = 100 * sum("<answer>A" in row.completion for row in blind) / 8
    assert f"| {share:.1f} / {share:.1f} |" in capsys.readouterr().out


def test_the_scorer_is_a_choice(tmp_path, capsys):
    loose = [prediction(i, True, completion="The answer is A.") for i in range(40)]
    wrong = [prediction(i, False, model="expert") for i in range(40)]
    run = experiment(tmp_path / "run", [*loose, *wrong])
    assert load_systems([run], scorer="strict")[0].right != load_systems([run], scorer="lenient")[0].right
    assert main([str(run), "--scorer", "lenient"]) == 0
    assert "| worse |" in capsys.readouterr().out
    assert main([str(run), "--scorer", "strict"]) == 0
    assert "| no evidence |" in capsys.readouterr().out


def test_what_two_experiments_share_is_not_tested(tmp_path, capsys):
    rates = {"skin": 0.5, "brain": 0.5}
    shared = rows_of("base", rates, 40) + rows_of("sft", rates, 40, seed=1)
    a = experiment(tmp_path / "a", [*shared, *rows_of("expert", rates, 40, seed=2)])
    b = experiment(tmp_path / "b", [*shared, *rows_of("expert", rates, 40, seed=3)])
    assert main([str(a), str(b), "--out", str(tmp_path / "out")]) == 0
    printed = capsys.readouterr().out
    assert "a:base" not in printed
    assert "corrected over the 4 rows" in printed  # one pair left: skin, brain, all, mean
    assert "2 further pairs of systems gave the very same completions" in printed
    alone = [row for row in csv.DictReader((tmp_path / "out/compare.csv").open())]
    assert main([str(a), str(b), "--models", "expert", "--out", str(tmp_path / "expert")]) == 0
    assert "further" not in capsys.readouterr().out
    again = [row for row in csv.DictReader((tmp_path / "expert/compare.csv").open())]
    assert [row["p_holm"] for row in alone] == [row["p_holm"] for row in again]
    assert main([str(a), str(b), "--models", "base"]) == 2
    assert "all 1 pairs gave the very same completions" in capsys.readouterr().err


def test_the_same_letter_for_other_orders_is_not_the_same_answer(tmp_path):
    rows = rows_of("base", {"skin": 0.5}, 6)
    other = [replace(r, model="new", options=OPTIONS[::-1], answer_letter="C", protocol={"shuffle": "1"}) for r in rows]
    first, second = load_systems([experiment(tmp_path / "run", [*rows, *other])])
    assert not answer_alike(first, second)
    assert answer_alike(first, first)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere"], "has nowhere been evaluated?"),
        (["{run}", "--baseline", "x"], "nothing to compare with baseline 'x' among base, expert"),
        (["{run}", "--models", "base"], "nothing to compare among base"),
        (
            ["{run}", "--models", "base", "base@*", "--vary", "image"],
            "no model fits 'base@*'; the experiments have base, expert",
        ),
        (["{run}", "--alpha", "2"], "--alpha must lie in"),
        (["{run}", "--scorer", "official:omnimedvqa_prefix"], "has no option_losses"),
    ],
)
def test_the_command_says_what_is_wrong(two, capsys, arguments, message):
    assert main([argument.format(run=two) for argument in arguments]) == 2
    assert message in capsys.readouterr().err


def test_names_cannot_break_the_tables(two):
    row = replace(judged(compare_pair(*load_systems([two])))[0], system="a|b_<script>\n&%$#{x}\\[^~")
    line = markdown(HEADER, [cells(row)]).splitlines()[2]
    assert line.replace("\\|", "").count("|") == len(HEADER) + 1
    assert "<script" not in line.replace("\\<", "")
    text = latex(HEADER, [cells(row)], "caption")
    assert r"a|b\_$<$script$>$ \&\%\$\#\{x\}\textbackslash{}{[}\textasciicircum{}\textasciitilde{}" in text
    assert tex("100 %") == r"100 \%"
    assert next(csv.DictReader(io.StringIO(as_csv([row]))))["system"] == row.system
    drawn = figure([row])
    drawn.canvas.draw()
    assert len(drawn.axes[0].get_yticklabels()) == 1


@pytest.mark.parametrize("count", [1, 40])
def test_the_figure_cuts_nothing_off_and_wastes_no_paper(two, count):
    row = replace(judged(compare_pair(*load_systems([two])))[0], system="run/merged/task_arithmetic" * 2)
    drawn = figure([row] * count)
    drawn.canvas.draw()
    box, page, axes = drawn.get_tightbbox(), drawn.get_size_inches(), drawn.axes[0]
    assert min(box.x0, box.y0, page[0] - box.x1, page[1] - box.y1) >= 0
    assert axes.get_ylim() == (count - 0.5, -0.5)  # the first row on top, half a row of space at both ends
    [legend] = drawn.legends
    assert [text.get_text() for text in legend.get_texts()] == ["better", "worse", "no evidence"]
    assert not axes.get_window_extent().overlaps(legend.get_window_extent())


def test_p_values_for_reading():
    assert [points(value) for value in (0.1234, math.inf)] == ["12.3", "none"]
    assert [p_value(p) for p in (0.5, 0.04321, 1e-5, 1.0, math.nan)] == ["0.5", "0.043", "< 0.0001", "1", "-"]
