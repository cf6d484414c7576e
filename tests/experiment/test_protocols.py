"""Reference: an uninterrupted run's bytes, and the released protocols' own arithmetic on what is stored.

Run: pytest tests/experiment/test_protocols.py.
"""

import json
from dataclasses import replace

import pytest
import yaml

import train
from answering import examination
from callbacks.evaluate_experts import EvaluateExperts
from configs.load import load
from evaluation.compare import load_systems, refuse_unlike
from evaluation.compare import main as compare
from evaluation.predictions import by_variant, read_predictions
from evaluation.rescore import main as rescore
from evaluation.scorers import scorer_named
from experiment.context import ExperimentContext
from experiment.run import assemble
from tests.datamodules import released_shapes
from tests.experiment.conftest import contents

EVALUATE = "callbacks.evaluate.init_args."
OPTIONS = {
    "two_turn": ["max_new_tokens=10", "answer_tokens=6", "temperature=0.7", "samples=2"],
    "likelihood": [],
    "single": ["max_new_tokens=10"],
}
MAIN = {"two_turn": "official:medxpertqa", "likelihood": "official:omnimedvqa_prefix", "single": "strict"}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """One set of each release: five options and one to six pictures; two to four options and one picture."""
    folder = tmp_path_factory.mktemp("released")
    made = {
        "medxpertqa": ("datamodules.medxpertqa.MedXpertQA", released_shapes.medxpertqa(folder / "medxpertqa")),
        "omnimedvqa": ("datamodules.omnimedvqa.OmniMedVQA", released_shapes.omnimedvqa(folder / "omnimedvqa")),
    }
    sets = {name: {"class_path": path, "init_args": given} for name, (path, given) in made.items()}
    (folder / "data.yaml").write_text(yaml.safe_dump({"specialties": sets}))
    return folder / "data.yaml"


def evaluate(machine, data, protocol, *overrides):
    """The base and one expert on both sets, without and with their pictures, in pieces; returns the exit code."""
    model = machine.files / "base.yaml"
    arguments = [f"model={model}", f"requires=[{model}]", f"data={data}", f"runs_dir={machine.runs}", "workers=1"]
    arguments.append("trust=[made_bars]")
    arguments += [f"name={protocol}", f"adapters=[{machine.runs}/gba/alpha]"]
    options = ["n=3", "image=[shown, none]", "rows_at_once=4", f"protocol={protocol}", *OPTIONS[protocol]]
    return train.main(
        ["--config", "evaluate.yaml", *arguments, *(f"{EVALUATE}{option}" for option in options), *overrides]
    )


@pytest.fixture(scope="module")
def examined(lineage, data, tmp_path_factory):
    """Asked in all three ways: read it, do not change it."""
    made = lineage.copy(tmp_path_factory.mktemp("examined") / "runs").without("gba/evaluation")
    for protocol in OPTIONS:
        assert evaluate(made, data, protocol) == 0
    return made


def test_two_turns_are_stored_and_counted_by_the_releases_reading(examined):
    ways = by_variant(read_predictions(examined.runs / "two_turn"))
    # 3 questions x 2 sets x 2 models x 2 samples, with and without pictures
    assert {label: len(items) for label, items in ways.items()} == {"": 24, "image=none": 24}
    for item in ways[""]:
        assert len(item.turns) == 1
        assert (item.protocol["protocol"], item.protocol["answer_tokens"]) == ("two_turn", "6")
        assert 2 <= item.n_tokens <= 16
    assert len({item.turns for item in ways[""]}) > 6
    assert len({item.completion for item in ways[""]}) > 6


def test_likelihoods_are_stored_per_option_and_the_least_loss_counts(examined):
    predictions = read_predictions(examined.runs / "likelihood")
    assert {len(item.options) for item in predictions} == {2, 3, 5}
    for item in predictions:
        assert len(item.option_losses) == len(item.option_tokens) == len(item.options)
        assert (item.completion, item.n_tokens, item.protocol["protocol"]) == ("", 0, "likelihood")
        assert "max_new_tokens" not in item.protocol
    # by hand, without our scorers: the table's accuracy is the share of questions whose right option has least loss
    rows = (examined.runs / "likelihood/evaluation/matrix.csv").read_text().splitlines()[1:]
    for row in rows:
        model, accuracy, _, _, n, lenient, *_ = row.split(",")
        items = [
            i for i in predictions if i.model == model and i.specialty == "medxpertqa" and "image" not in i.protocol
        ]
        least = [min(range(5), key=item.option_losses.__getitem__) for item in items]
        right = sum("ABCDE"[k] == item.answer_letter for k, item in zip(least, items, strict=True))
        assert (float(accuracy), int(n)) == (pytest.approx(right / 3, abs=1e-6), 3)
        assert lenient == accuracy  # no text is there to be read otherwise
    shown, blind = by_variant(predictions).values()
    assert [a.option_losses for a in shown] != [b.option_losses for b in blind]  # the picture is looked at


@pytest.mark.parametrize("protocol", OPTIONS)
def test_every_table_follows_from_the_stored_answers(examined, protocol, capsys):
    assert rescore([str(examined.runs / protocol), "--check"]) == 0
    printed = capsys.readouterr().out
    assert f"| model | specialty | n | patients | {MAIN[protocol]}, % | lenient, % |" in printed
    assert "numbers follow from the predictions" in printed
    outcome = scorer_named(MAIN[protocol])
    scores = json.loads((examined.runs / protocol / "evaluation/scores.json").read_text())
    for model, columns in scores.items():
        for specialty, one in columns.items():
            items = [
                item
                for item in by_variant(read_predictions(examined.runs / protocol))[""]
                if (item.model, item.specialty) == (model, specialty)
            ]
            assert one["correct_strict"] == sum(outcome(item).right for item in items)


@pytest.mark.parametrize("protocol", ["two_turn", "likelihood"])
def test_a_kill_costs_one_piece_and_no_byte(examined, lineage, data, protocol, tmp_path, monkeypatch):
    cut = lineage.copy(tmp_path / "runs").without("gba/evaluation")
    asked = []
    original = examination.Examination.answers

    def killed_at(limit):
        def answers(self, policy, cell, questions):
            if len(asked) == limit:
                raise KeyboardInterrupt
            asked.append((cell.path.name, [question.question_id for question in questions]))
            return original(self, policy, cell, questions)

        return answers

    for limit in (1, 4, None):  # before the second piece of the first cell, between cells, never
        monkeypatch.setattr(examination.Examination, "answers", killed_at(limit))
        assert evaluate(cut, data, protocol) == (0 if limit is None else 130)
    assert len(asked) == len({(name, *ids) for name, ids in asked})  # no piece was asked twice
    for file in ("predictions.jsonl", "matrix.csv", "report.md", "scores.json"):
        ours, whole = (runs.runs / protocol / "evaluation" / file for runs in (cut, examined))
        assert ours.read_bytes() == whole.read_bytes()
    before = contents(cut.runs)
    monkeypatch.setattr(ExperimentContext, "policy", lambda self: pytest.fail("a model was loaded for what is there"))
    assert evaluate(cut, data, protocol) == 0
    assert contents(cut.runs) == before


def test_protocols_do_not_compare_unless_that_is_meant(examined, capsys):
    folders = {protocol: examined.runs / protocol for protocol in OPTIONS}
    for first, second in (("single", "two_turn"), ("single", "likelihood"), ("two_turn", "likelihood")):
        systems = load_systems([folders[first], folders[second]], ["base"])
        if "two_turn" in (first, second):  # two samples against one
            systems = [replace(s, items={k: v for k, v in s.items.items() if k[3] == 0}) for s in systems]
        with pytest.raises(ValueError, match=r"their protocols differ: .*protocol '"):
            refuse_unlike(*systems)
        meant = ["protocol", "answer_tokens", "max_new_tokens", "temperature"]
        with pytest.raises(ValueError, match="was put with another stem, instruction or picture"):
            refuse_unlike(*systems, meant)
        refuse_unlike(*systems, [*meant, "prompt"])
    both = [str(folders["single"]), str(folders["likelihood"])]
    assert compare([*both, "--models", "base"]) == 2
    assert "protocol 'not stated' and 'likelihood'" in capsys.readouterr().err
    assert compare([*both, "--models", "base", "--vary", "protocol", "max_new_tokens", "prompt"]) == 0
    assert "Scored by official:omnimedvqa_prefix and strict." in capsys.readouterr().out
    assert compare([str(folders["likelihood"])]) == 0
    assert "Scored by official:omnimedvqa_prefix." in capsys.readouterr().out


def made_callback(machine, data, *options):
    """The callback of an evaluation that has not run."""
    model = machine.files / "base.yaml"
    overrides = [f"model={model}", f"requires=[{model}]", f"data={data}", f"runs_dir={machine.runs}"]
    overrides.append("trust=[made_bars]")
    context = assemble(load("evaluate.yaml", [*overrides, *(f"{EVALUATE}{option}" for option in options)]))
    return next(one for one in context.callbacks() if isinstance(one, EvaluateExperts))


def test_whatever_changes_an_answer_changes_the_cells_name(lineage, data, monkeypatch):
    def paths(*options):
        return frozenset(cell.path for cell in made_callback(lineage, data, "n=3", *options).matrix.cells())

    ways = [(), ("protocol=two_turn",), ("protocol=two_turn", "answer_tokens=9"), ("protocol=likelihood",)]
    ways.append(("protocol=two_turn", "max_new_tokens=9"))
    found = [paths(*options) for options in ways]
    assert all(not a & b for i, a in enumerate(found) for b in found[:i])
    assert paths("answer_tokens=9") == found[0]  # single has no second turn
    assert paths("protocol=likelihood", "answer_tokens=9", "max_new_tokens=9") == found[3]  # nor has likelihood a first
    monkeypatch.setattr(
        "callbacks.matrix_cells.TEXTS", {"single": (), "two_turn": ("other",), "likelihood": ("words",)}
    )
    assert paths() == found[0]
    assert not paths("protocol=two_turn") & found[1]
    assert not paths("protocol=likelihood") & found[3]


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ((), "single, answers of at most 96 tokens; counts by strict; 1 ways x 1 guidelines x 1 samples"),
        (
            ("protocol=two_turn", "answer_tokens=9", "image=[shown, none]", "temperature=1.0", "samples=4"),
            "two_turn, answers of at most 96 tokens, then of 9; counts by official:medxpertqa; "
            "2 ways x 1 guidelines x 4 samples",
        ),
        (
            ("protocol=likelihood", "image=[shown, none, blank]"),
            "likelihood, nothing is written; counts by official:omnimedvqa_prefix; 3 ways x 1 guidelines x 1 samples",
        ),
    ],
)
def test_the_plan_says_how_it_would_be_asked(machine, data, options, line):
    assert made_callback(machine, data, *options).plan() == f"protocol {line}"  # no base is there yet


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["protocol=two_turns"], "one of 'single', 'two_turn', 'likelihood'"),
        (["protocol=two_turn", "answer_tokens=0"], "answer_tokens must be at least 1, got 0"),
        (["protocol=two_turn", "guidelines=[neutral, bayesian]"], "guidelines must be [neutral]"),
        (["protocol=likelihood", "guidelines=[bayesian]"], "got ['bayesian'] and 0; protocol=single takes both"),
        (["protocol=two_turn", "paraphrase=1"], "paraphrase 0"),
        (["protocol=likelihood", "temperature=0.7"], "temperature and shuffle_options must be 0, samples 1"),
        (["protocol=likelihood", "temperature=0.7", "samples=4"], "got 0.7, 0, 4 and []"),
        (["protocol=likelihood", "samples=4"], "1 at temperature 0"),
        (["protocol=likelihood", "shuffle_options=2"], "got 0.0, 2, 1 and []"),
        (["protocol=likelihood", "scorers=['official:medevalkit']"], "writes no text"),
    ],
)
def test_settings_that_do_not_fit_a_protocol_are_refused_before_torch(options, message, capsys):
    assert train.main(["--config", "evaluate.yaml", *(f"{EVALUATE}{option}" for option in options)]) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("protocol", ["two_turn", "likelihood"])
def test_open_questions_are_refused_by_name_before_a_model_is_loaded(lineage, protocol, tmp_path, monkeypatch, capsys):
    slake = {"class_path": "datamodules.slake.Slake", "init_args": released_shapes.slake(tmp_path / "slake")}
    slake["init_args"] |= {"questions": "all"}
    (tmp_path / "open.yaml").write_text(yaml.safe_dump({"specialties": {"slake": slake}}))
    made = lineage.copy(tmp_path / "runs")
    monkeypatch.setattr(ExperimentContext, "policy", lambda self: pytest.fail("a model was loaded"))
    assert evaluate(made, tmp_path / "open.yaml", protocol, f"{EVALUATE}n=0") == 1
    said = capsys.readouterr().err
    assert f"protocol={protocol} needs options to choose from, and " in said
    assert "questions of 'slake' have none, such as '" in said
