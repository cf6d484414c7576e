"""Reference: an uninterrupted run's bytes, the matrix of the lineage, and the files scored again without a model.

Run: pytest tests/experiment/test_evaluation_run.py.
"""

import hashlib
import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import train
from answering import examination
from artifacts.adapter_files import AdapterError, acting_sha256
from artifacts.chains import named_chains
from artifacts.manifest import file_sha256
from callbacks.evaluate_experts import EvaluateExperts
from configs.load import load
from datamodules.hashes import data_sha256
from datamodules.prompts import VERSION
from evaluation import odds
from evaluation.odds import key_of
from evaluation.predictions import by_variant, read_predictions
from evaluation.rescore import main as rescore
from evaluation.tables import report, telling_tags
from experiment.context import ExperimentContext
from experiment.run import assemble
from tests.datamodules import released_shapes
from tests.experiment.conftest import contents

EVALUATE = "callbacks.evaluate.init_args."
EVERYTHING = [
    "n=3",
    "max_new_tokens=12",
    "guidelines=[neutral, intuitive, bayesian]",
    "samples=2",
    "temperature=0.7",
    "image=[shown, none, blank, swapped]",
    "shuffle_options=2",
    "paraphrase=1",
    "scorers=['official:medxpertqa', 'official:medevalkit']",
    "rows_at_once=4",
]


@pytest.fixture(scope="module")
def medxpertqa(tmp_path_factory):
    """A folder in MedXpertQA's released shape: no training split, one to six pictures a question."""
    return released_shapes.medxpertqa(tmp_path_factory.mktemp("medxpertqa"))["root"]


def evaluate(machine, *overrides, data="medxpertqa"):
    """`train.py --config evaluate.yaml` on the machine's small model; returns the exit code."""
    model = machine.files / "base.yaml"
    arguments = [f"model={model}", f"requires=[{model}]", f"data={data}", f"runs_dir={machine.runs}", "workers=1"]
    arguments.append("trust=[made_bars]")
    return train.main(["--config", "evaluate.yaml", *arguments, *overrides])


def everything(machine, root, *overrides):
    """One expert and the base in every way that there is."""
    options = [f"{EVALUATE}{option}" for option in EVERYTHING]
    return evaluate(machine, f"data.root={root}", f"adapters=[{machine.runs}/gba/alpha]", *options, *overrides)


@pytest.fixture(scope="module")
def examined(lineage, medxpertqa, tmp_path_factory):
    """Everything was asked: read it, do not change it."""
    made = lineage.copy(tmp_path_factory.mktemp("examined") / "runs").without("gba/evaluation")
    assert everything(made, medxpertqa) == 0
    return made


def test_a_released_set_is_examined_in_every_way_without_training(examined):
    folder = examined.runs / "evaluate"
    assert not (folder / "medxpertqa").exists()
    assert json.loads((folder / "status.json").read_text())["state"] == "finished"
    predictions = read_predictions(folder)
    ways = by_variant(predictions)
    # 3 questions x 2 models x 3 guidelines x 2 samples in each way: all have pictures, and five options
    assert {label: len(items) for label, items in ways.items()} == dict.fromkeys(
        ["", "image=none", "image=blank", "image=swapped", "shuffle=1", "shuffle=2", "wording=1"], 36
    )
    assert all(item.protocol["temperature"] == "0.7" for item in predictions)
    assert {item.model for item in predictions} == {"base", "gba/alpha"}
    assert [item.guideline for item in predictions[:6]] == [
        name for name in ("neutral", "intuitive", "bayesian") for _ in range(2)
    ]
    turned = {item.key: item for item in ways["shuffle=1"]}
    for item in ways[""]:
        other = turned[item.key]
        assert other.options != item.options
        assert sorted(other.options) == sorted(item.options)
        assert other.gold == item.gold
        assert set(item.tags) == {"medical_task", "body_system", "question_type"}


def test_every_table_follows_from_the_file_of_answers(examined, capsys):
    folder = examined.runs / "evaluate"
    scorers = ["official:medxpertqa", "official:medevalkit"]
    assert rescore([str(folder), "--check", "--scorer", *scorers]) == 0
    printed = capsys.readouterr().out
    predictions = read_predictions(folder)
    text = (folder / "evaluation/report.md").read_text("utf-8")
    assert text == report(predictions, scorers, telling_tags(predictions)) + "\n"
    assert text.strip() in printed
    for title in (
        "Several answers",
        "Questions put in another way",
        "Orders",
        "Wordings",
        "Scored by",
        "By body_system",
    ):
        assert f"## {title}" in text
    assert f"{folder}/evaluation/matrix.csv: the 12 numbers follow" in printed


def test_what_a_verifier_chooses_joins_the_report_when_the_command_is_given_again(
    examined, medxpertqa, tmp_path, capsys
):
    made = examined.copy(tmp_path / "runs")
    folder, title = made.runs / "evaluate", "## Chosen by a verifier"
    assert title not in (folder / "evaluation/report.md").read_text("utf-8")
    sure = {key_of(item): float(len(item.completion)) for item in by_variant(read_predictions(folder))[""]}
    (folder / "evaluation" / odds.FILE).write_text(odds.written(sure, {"head": "made"}))
    assert everything(made, medxpertqa) == 0
    text = (folder / "evaluation/report.md").read_text("utf-8")
    table = text[text.index(title) :].partition("\n\n## ")[0]
    assert [line.split(" | ")[0] for line in table.splitlines() if " | medxpertqa | 3 | 6 | " in line] == [
        "| base",
        "| gba/alpha",
    ]
    capsys.readouterr()
    assert rescore([str(folder), "--check", "--scorer", "official:medxpertqa", "official:medevalkit"]) == 0
    assert text.strip() in capsys.readouterr().out


def test_votes_and_variants_are_on_the_board(examined):
    events = EventAccumulator(str(examined.runs / "evaluate/evaluation")).Reload()
    tags = events.Tags()
    assert tags["images"] == ["evaluation/matrix", "evaluation/variants/medxpertqa"]
    scalars = set(tags["scalars"])
    for name in ("accuracy", "vote", "pass_at_1", "pass_at_6", "maj_at_4", "image_none/accuracy", "circular_accuracy"):
        assert f"test/{name}/medxpertqa/gba.alpha" in scalars
    both = [events.Scalars(f"test/{name}/medxpertqa/base")[0].value for name in ("accuracy", "pass_at_1")]
    assert both[0] == pytest.approx(both[1])


def test_a_kill_costs_one_piece_and_no_byte(examined, lineage, medxpertqa, tmp_path, monkeypatch, capsys):
    cut = lineage.copy(tmp_path / "runs").without("gba/evaluation")
    asked = []

    def killed_at(limit):
        def answers(self, policy, cell, questions):
            if len(asked) == limit:
                raise KeyboardInterrupt
            asked.append((cell.path.name, [q.question_id for q in questions]))
            return original(self, policy, cell, questions)

        return answers

    original = examination.Examination.answers
    for limit in (1, 2, 12, None):  # before the second piece of the first cell, right after it, amid the cells, never
        monkeypatch.setattr(examination.Examination, "answers", killed_at(limit))
        assert everything(cut, medxpertqa) == (0 if limit is None else 130)
        parts = list((cut.runs / "evaluate/evaluation/cells").glob("*.parts"))
        assert len(parts) == (1 if limit == 1 else 0)
    assert len(asked) == len({(name, *ids) for name, ids in asked}) == 7 * 2 * 3 * 2  # no piece was asked twice
    for file in ("predictions.jsonl", "matrix.csv", "report.md", "scores.json"):
        ours, whole = (runs.runs / "evaluate/evaluation" / file for runs in (cut, examined))
        assert ours.read_bytes() == whole.read_bytes()
    before = contents(cut.runs)
    assert everything(cut, medxpertqa) == 0
    assert contents(cut.runs) == before


def test_a_sample_does_not_depend_on_its_neighbours_or_on_how_many_there_are(examined, lineage, medxpertqa, tmp_path):
    other = lineage.copy(tmp_path / "runs").without("gba/evaluation")
    options = ["guidelines=[bayesian]", "samples=3", "rows_at_once=100", "image=[shown]", "n=2"]
    plain = ["shuffle_options=0", "paraphrase=0"]
    assert everything(other, medxpertqa, *(f"{EVALUATE}{option}" for option in (*options, *plain))) == 0
    known = {(item.model, item.key): item for item in by_variant(read_predictions(examined.runs / "evaluate"))[""]}
    found = {(item.model, item.key): item for item in read_predictions(other.runs / "evaluate")}
    shared = known.keys() & found.keys()
    assert len(shared) == 2 * 2 * 2  # models, questions, samples
    assert all(known[key] == found[key] for key in shared)
    assert len({item.completion for item in found.values()}) > 2  # the draws differ


def bars_file(machine, folder):
    """The lineage's own specialties as a file to choose."""
    content = yaml.safe_load((machine.files / "gba.yaml").read_text())
    (folder / "bars.yaml").write_text(yaml.safe_dump({key: content[key] for key in ("specialties", "data")}))
    return folder / "bars.yaml"


def test_the_lineages_cells_are_found_again_and_no_model_is_loaded(lineage, tmp_path, monkeypatch):
    # The same questions under the default protocol: an expert with its parent, and a merged agent, by their folders.
    again = lineage.copy(tmp_path / "runs")

    def policy(self):
        raise AssertionError("a model was loaded for what is there")

    monkeypatch.setattr(ExperimentContext, "policy", policy)
    adapters = ["dsa/beta", "gba/alpha/adapter", "gba/merged/ties"]
    folders = ", ".join(str(again.runs / name) for name in adapters)
    options = [f"{EVALUATE}n=4", f"{EVALUATE}max_new_tokens=20", f"adapters=[{folders}]"]
    assert evaluate(again, *options, data=bars_file(again, tmp_path)) == 0
    ours = (again.runs / "evaluate/evaluation/matrix.csv").read_text().splitlines()
    whole = (again.runs / "gba/evaluation/matrix.csv").read_text().splitlines()
    assert [line.partition(",")[0] for line in ours[1:]] == ["base", "dsa/beta", "gba/alpha", "gba/merged/ties"]
    assert set(ours) <= set(whole)


def test_a_rejected_merge_has_a_row_that_says_so(lineage, tmp_path):
    again = lineage.copy(tmp_path / "runs")
    ties = again.runs / "gba/merged/ties"
    (ties / "rejected").mkdir()
    (ties / "adapter").rename(ties / "rejected/adapter")
    rows = assemble(load(again.files / "gba.yaml", [f"runs_dir={again.runs}"])).examined
    assert [name for name in rows if "merged" in name] == ["gba/merged/task_arithmetic", "gba/merged/ties.rejected"]


def test_cells_of_the_default_protocol_keep_their_names(lineage):
    # The recipe of the name, written out: what was computed under it must be found by every later version.
    context = assemble(load(lineage.files / "gba.yaml", [f"runs_dir={lineage.runs}"]))
    files = json.loads((lineage.runs / "base/mixed/base/manifest.json").read_text())["files"]
    assert {"model.safetensors", "tokenizer.json"} <= set(files)
    hashes = sorted([name, file_sha256(lineage.runs / "base/mixed/base" / name)] for name in files)
    told = [hashes, context.resolved["model"]["class_path"], context.resolved["model"]["init_args"], "float32"]
    base = hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()
    for adapters in ([], ["dsa/beta/adapter"], ["dsa/alpha/adapter", "gba/alpha/adapter"]):
        hashes = [acting_sha256(lineage.runs / name) for name in adapters]
        for specialty in ("alpha", "beta"):
            data = data_sha256(context.data(specialty), "test")
            parts = "\n".join([base, *hashes, data, "4", "20", VERSION])
            name = hashlib.sha256(parts.encode()).hexdigest()[:32]
            assert (lineage.runs / "gba/evaluation/cells" / f"{name}.jsonl").is_file()


def test_whatever_changes_an_answer_changes_the_cells_name(lineage):
    def paths(*options):
        overrides = [f"runs_dir={lineage.runs}", *(o if o.startswith("seed") else f"{EVALUATE}{o}" for o in options)]
        context = assemble(load(lineage.files / "gba.yaml", overrides))
        made = next(one for one in context.callbacks() if isinstance(one, EvaluateExperts))
        return frozenset(cell.path for cell in made.matrix.cells())

    drawn = ("temperature=0.5",)
    different = [
        (),
        ("max_new_tokens=21",),
        ("n=3",),
        ("split=val",),
        ("guidelines=[bayesian]",),
        ("image=[blank]",),
        drawn,
        ("temperature=0.6",),
        (*drawn, "samples=2"),
        (*drawn, "seed=5"),
    ]
    found = [paths(*options) for options in different]
    assert all(not a & b for i, a in enumerate(found) for b in found[:i])
    assert paths("seed=5") == paths("rows_at_once=7") == paths("scorers=['official:medevalkit']") == found[0]
    assert paths("image=[shown, none]", "shuffle_options=1", "paraphrase=1", "guidelines=[neutral, bayesian]") > (
        found[0] | found[4]
    )


def test_published_weights_that_were_replaced_are_another_base(tmp_path):
    def key():
        model = f"{{class_path: lightning_modules.families.qwen2_5_vl.Qwen2_5_VL, init_args: {{path: {tmp_path}}}}}"
        return assemble(load("evaluate.yaml", [f"model={model}", "requires=[]"])).base_key

    (tmp_path / "model.safetensors").write_bytes(b"old")
    before = key()
    assert key() == before
    (tmp_path / "model.safetensors").write_bytes(b"newer")
    assert key() != before


def test_a_finished_pipelines_matrix_follows_from_its_answers(lineage, capsys):
    assert rescore([str(lineage.runs / "gba"), "--check"]) == 0
    assert "numbers follow from the predictions" in capsys.readouterr().out


def test_open_questions_run_through(lineage, tmp_path, capsys):
    slake = {"class_path": "datamodules.slake.Slake", "init_args": released_shapes.slake(tmp_path / "slake")}
    slake["init_args"] |= {"questions": "all"}
    (tmp_path / "open.yaml").write_text(yaml.safe_dump({"specialties": {"slake": slake}}))
    made = lineage.copy(tmp_path / "runs")
    options = ["n=12", "max_new_tokens=12", "image=[shown, blank]", "shuffle_options=1", "paraphrase=1"]
    scorers = f"{EVALUATE}scorers=['official:medevalkit', 'official:medxpertqa']"
    assert evaluate(made, *(f"{EVALUATE}{o}" for o in options), scorers, data=tmp_path / "open.yaml") == 0
    folder = made.runs / "evaluate"
    ways = by_variant(read_predictions(folder))
    kinds = {bool(item.options) for item in ways[""]}
    assert kinds == {True, False}
    assert all(item.answer in ("Liver", "Left") for item in ways[""] if not item.options)
    assert all(item.options for item in ways["shuffle=1"])
    assert len(ways["wording=1"]) == len(ways["image=blank"]) == 12
    text = (folder / "evaluation/report.md").read_text()
    assert "| slake | 12 | - |  |  |  | has questions without options |" in text
    assert "## By answer_type" in text
    assert rescore([str(folder), "--check"]) == 0


def test_answers_of_an_open_model_are_scored_on_the_way(lineage, tmp_path, monkeypatch):
    # What the model says is replaced: everything else is the real path from the released row to the matrix.
    def answers(self, policy, cell, questions):
        found = original(self, policy, cell, questions)
        return [replace(p, completion=f"<think>as seen</think><answer>{p.gold.lower()}.</answer>") for p in found]

    original = examination.Examination.answers
    monkeypatch.setattr(examination.Examination, "answers", answers)
    slake = {"class_path": "datamodules.slake.Slake", "init_args": released_shapes.slake(tmp_path / "slake")}
    slake["init_args"] |= {"questions": "open"}
    (tmp_path / "open.yaml").write_text(yaml.safe_dump({"specialties": {"slake": slake}}))
    made = lineage.copy(tmp_path / "runs")
    assert evaluate(made, f"{EVALUATE}n=5", f"{EVALUATE}max_new_tokens=2", data=tmp_path / "open.yaml") == 0
    assert (made.runs / "evaluate/evaluation/matrix.csv").read_text().splitlines()[1].startswith("base,1.000000,")


def test_only_takes_columns_away_and_they_come_back(lineage, tmp_path):
    made = lineage.copy(tmp_path / "runs").without("gba/evaluation")
    options = [f"{EVALUATE}n=4", f"{EVALUATE}max_new_tokens=20", f"adapters=[{made.runs}/gba/merged/ties]"]
    data = bars_file(made, tmp_path)
    assert evaluate(made, "only=[beta]", *options, data=data) == 0
    table = made.runs / "evaluate/evaluation/matrix.csv"
    assert "alpha" not in table.read_text()
    assert evaluate(made, *options, data=data) == 0
    whole = {line for line in (lineage.runs / "gba/evaluation/matrix.csv").read_text().splitlines()}
    assert set(table.read_text().splitlines()) <= whole


def test_a_dry_run_says_what_would_be_examined(lineage, medxpertqa, capsys):
    model = lineage.files / "base.yaml"
    arguments = [f"model={model}", f"requires=[{model}]", "data=medxpertqa", f"data.root={medxpertqa}", "--dry-run"]
    overrides = [f"runs_dir={lineage.runs}", f"adapters=[{lineage.runs}/gba/alpha]", "trust=[made_bars]"]
    assert train.main(["--config", "evaluate.yaml", *arguments, *overrides]) == 0
    told = capsys.readouterr().out
    assert "evaluate: examines base, gba/alpha on medxpertqa" in told
    assert "  protocol single, answers of at most 96 tokens; counts by strict; 1 ways x 1 guidelines" in told


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("samples=2", "1 at temperature 0"),
        ("temperature=-1", "temperature must be at least 0"),
        ("guidelines=[bayes]", "unknown name 'bayes' among guidelines; did you mean 'bayesian'?"),
        ("image=[shown, shown]", "none twice"),
        ("image=[]", "at least one"),
        ("image=none", "write [none]"),
        ("image=[black]", "one of 'shown', 'none', 'blank', 'swapped'"),
        ("shuffle_options=10", "shuffle_options must lie in [0, 9]"),
        ("paraphrase=5", "paraphrase must lie in [0, 4]"),
        ("scorers=['official:medxpert']", "one of 'official:medxpertqa'"),
    ],
)
def test_settings_that_do_not_fit_are_refused_before_torch(option, message, capsys):
    assert train.main(["--config", "evaluate.yaml", f"{EVALUATE}{option}"]) == 2
    assert message in capsys.readouterr().err


def test_adapters_are_named_by_the_end_of_their_path_and_bring_their_parents(lineage, tmp_path):
    alpha = lineage.runs / "gba/alpha/adapter"
    chains = named_chains([str(alpha.parent), str(alpha), str(lineage.runs / "dsa/beta")], ["base"], tmp_path)
    assert chains == {
        "gba/alpha": [(lineage.runs / "dsa/alpha/adapter").resolve(), alpha.resolve()],
        "dsa/beta": [(lineage.runs / "dsa/beta/adapter").resolve()],
    }
    taken = named_chains([str(alpha)], ["base", "gba/alpha"], tmp_path)
    assert list(taken) == [f"{lineage.runs.name}/gba/alpha"]


def test_a_parent_that_is_nowhere_is_asked_for(lineage, tmp_path):
    lonely = tmp_path / "x" / "y" / "adapter"
    shutil.copytree(lineage.runs / "gba/alpha/adapter", lonely)
    with pytest.raises(AdapterError, match=r"grew from the adapter with sha256 .* name the parent's folder"):
        named_chains([str(lonely)], [], tmp_path)
    parent = lineage.runs / "dsa/alpha/adapter"
    assert named_chains([str(lonely), str(parent)], [], tmp_path)["x/y"] == [parent.resolve(), lonely.resolve()]
    assert named_chains([str(lonely)], [], lineage.runs)["x/y"][0] == parent.resolve()
    with pytest.raises(AdapterError, match="no manifest"):
        named_chains([str(tmp_path)], [], lineage.runs)


def test_an_adapter_of_another_base_is_refused_before_the_first_question(lineage, medxpertqa, tmp_path, capsys):
    made = lineage.copy(tmp_path / "runs").without("gba", "base")
    changed = "model.init_args.hidden=128"  # another base: drawn, not trained
    code = evaluate(
        made, "requires=[]", changed, f"data.root={medxpertqa}", f"adapters=[{made.runs}/dsa/alpha]", f"{EVALUATE}n=2"
    )
    assert code == 1
    captured = capsys.readouterr()
    assert "trained on the base with fingerprint" in captured.err
    assert "evaluated" not in captured.out
    assert not list(Path(made.runs / "evaluate/evaluation/cells").glob("*"))
