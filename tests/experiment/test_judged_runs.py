"""Reference: the reward model's own grades of the reasonings, each computed alone; what provenance and manifest record.

Run: pytest tests/experiment/test_judged_runs.py.
"""

import json
from argparse import Namespace

import pytest
import torch
import yaml
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from artifacts.adapter_files import adapter_sha256
from artifacts.head_files import read_head
from datamodules.batch import Example
from experiment import reward_audit
from experiment.integration import attach
from experiment.live_model import context_of
from lightning_modules.grading import RewardHead, graded_answers
from lightning_modules.judge import Judge
from lightning_modules.rewards.combine import judged
from lightning_modules.rewards.guidelines import load_guidelines
from lightning_modules.rewards.overlong import Overlong
from tests.experiment.test_resume import WEIGHTS, point

LIGHT = ("name=judged", "callbacks.evaluate=null", "callbacks.cards=null", "callbacks.merge=null", "only=[alpha]")


@pytest.fixture(scope="module")
def judge_made(lineage, tmp_path_factory):
    """The lineage with a finished reward model, and an experiment file that is rewarded by it."""
    made = lineage.copy(tmp_path_factory.mktemp("judged") / "runs")
    assert made.run("judge") == 0
    content = yaml.safe_load((made.files / "gba.yaml").read_text())
    terms = [{"class_path": f"lightning_modules.rewards.{name}"} for name in ("correct.Correct", "format.Format")]
    terms.append(
        {"class_path": "lightning_modules.judge.Judge", "init_args": {"model": str(made.runs / "judge/judge")}}
    )
    content["module"]["init_args"]["rewards"] = terms
    files = tmp_path_factory.mktemp("judged_files")
    return made.write(files, "gba", module=content["module"])


def test_rollouts_are_rewarded_and_the_judge_is_recorded(judge_made, tmp_path):
    made = judge_made.copy(tmp_path / "runs")
    assert made.run("gba", *LIGHT, "--dry-run") == 0
    assert made.run("gba", *LIGHT) == 0
    folder = made.runs / "judged/alpha"
    events = EventAccumulator(str(folder)).Reload()
    scores = [event.value for event in events.Scalars("train/reward/judge")]
    assert len(scores) == 2
    assert all(0 <= score <= 1 for score in scores)
    assert any(score > 0 for score in scores)
    judge = made.runs / "judge/judge/adapter"
    record = [{"adapter": adapter_sha256(judge), "head": read_head(judge)[1]["sha256"]}]
    assert json.loads((folder / "provenance.json").read_text())["judged_by"] == record
    assert json.loads((folder / "adapter/manifest.json").read_text())["extra"]["judged_by"] == record


def test_a_judge_changes_what_is_learnt_and_a_cut_run_goes_on_to_the_same_bytes(judge_made, tmp_path, monkeypatch):
    steps = ["trainer.max_steps=4", *LIGHT]
    whole, cut = judge_made.copy(tmp_path / "whole"), judge_made.copy(tmp_path / "cut")
    monkeypatch.setattr("experiment.fit.ResumePoint", point(every=2))
    assert whole.run("gba", *steps) == 0
    monkeypatch.setattr("experiment.fit.ResumePoint", point(every=2, stop_at=3))
    assert cut.run("gba", *steps) == 130
    monkeypatch.setattr("experiment.fit.ResumePoint", point(every=2))
    assert cut.run("gba", *steps) == 0
    judged_weights = (whole.runs / "judged/alpha" / WEIGHTS).read_bytes()
    assert judged_weights == (cut.runs / "judged/alpha" / WEIGHTS).read_bytes()
    assert whole.run("gba", *steps, "name=plain", "module.init_args.rewards=[]") != 0  # nothing to earn is refused
    two = yaml.safe_load((whole.files / "gba.yaml").read_text())["module"]["init_args"]["rewards"][:2]
    assert whole.run("gba", *steps, "name=plain", f"module.init_args.rewards={json.dumps(two)}") == 0
    assert judged_weights != (whole.runs / "plain/alpha" / WEIGHTS).read_bytes()


def test_another_judge_is_refused_and_a_missing_one_before_anything_is_trained(judge_made, tmp_path, capsys):
    made = judge_made.copy(tmp_path / "runs")
    here = [str(made.runs / "judge/judge")]
    moved = yaml.safe_load((made.files / "gba.yaml").read_text())["module"]["init_args"]["rewards"]
    moved[2]["init_args"]["model"] = here[0]
    judge = f"module.init_args.rewards={json.dumps(moved)}"
    assert made.run("gba", judge, *LIGHT) == 0
    made.without("judge")
    assert made.run("gba", judge, "name=later", *LIGHT) != 0
    assert "judge_tiny.yaml" in capsys.readouterr().err
    assert made.run("judge", "module.init_args.learning_rate=0.003") == 0
    assert made.run("gba", judge, *LIGHT) != 0
    assert "was rewarded by another judge" in capsys.readouterr().err


def test_scores_are_the_reward_models_own(judge_made):
    context = context_of(str(judge_made.files / "gba.yaml"), [f"runs_dir={judge_made.runs}"])
    policy, fingerprint = context.policy()
    policy.bare()
    attach(policy, Judge.adapter, judge_made.runs / "judge/judge/adapter", fingerprint)
    examples = context.data("alpha").splits["train"][:3]
    term = Judge(Judge.Config(model=str(judge_made.runs / "judge/judge"), dimensions=("overall",)))
    term.attach(policy)
    under = load_guidelines(["differential"])["differential"]
    texts = [
        f"<think>bar {n}, so the answer is {one}.</think><answer>A</answer>" for n, one in ((4, "short"), (30, "long"))
    ]
    read = [judged(text, example, under) for example in examples for text in [*texts, "no answer"]]
    found = term.scores(read)
    weights, meaning = read_head(judge_made.runs / "judge/judge/adapter")
    head = RewardHead(policy.family.hidden_size, meaning["dimensions"])
    head.load_state_dict(weights)
    for one, score in zip(read, found, strict=True):
        if one.gate is not None:
            assert score == 0
            continue
        with policy.acting([Judge.adapter]):
            (alone,) = graded_answers(policy, head, [(one.example, [one.thinking])])
        expected = torch.sigmoid(alone[0, 1] / (meaning["temperature"] or 1))
        assert score == pytest.approx(float(expected), abs=1e-5)


def test_the_audit_pays_the_four_ways_as_the_terms_do(judge_made, tmp_path, capsys):
    arguments = ["--config", str(judge_made.files / "gba.yaml"), f"runs_dir={judge_made.runs}", "--n", "0"]
    assert reward_audit.main([*arguments, "--out", str(tmp_path)]) == 0
    assert "blind paid as much, %" in capsys.readouterr().out
    rows = {(r["specialty"], r["term"]): r for r in json.loads((tmp_path / "reward_audit.json").read_text())["rows"]}
    assert {term for _, term in rows} == {"correct", "format", "judge"}
    correct = rows["alpha", "correct"]
    assert [correct[kind][0] for kind in reward_audit.KINDS] == [1, 1, 0, 1]
    assert correct["blind_as_much"][0] == 1
    judge = rows["alpha", "judge"]
    context = context_of(str(judge_made.files / "gba.yaml"), [f"runs_dir={judge_made.runs}"])
    questions, strangers = (context.data("alpha").splits[name] for name in ("test", "train"))
    assert judge["n"] == len(questions) * 2  # of both guidelines
    assert all(0 < judge[kind][0] < 1 for kind in ("own", "blind", "wrong"))

    given = Namespace(n=1, split="test")
    guides = load_guidelines(["differential"])
    (own, blind, wrong, bare) = reward_audit.written(context, "alpha", guides, given)
    asked = questions[0]
    assert {one[0].question_id for one in (own, blind, wrong, bare)} == {asked.question_id}
    assert own[3] == asked.trace("differential", "text")
    same = [e.trace("differential", "text") for e in strangers if e.answer == asked.answer]
    others = [e.trace("differential", "text") for e in strangers if e.answer != asked.answer]
    assert blind[3] in same
    assert wrong[3] in others
    assert reward_audit.main([*arguments[:3], "--n", "-1"]) == 2
    assert reward_audit.main(["--config", str(judge_made.files / "dsa.yaml"), arguments[2]]) == 2
    assert "no rewards" in capsys.readouterr().err


def test_the_audit_bounds_penalties_too():
    said = [
        (Example(f"p{i}", (), "q", ("a", "b"), "a", f"q{i}"), None, kind, "")
        for i in range(6)
        for kind in reward_audit.KINDS
    ]
    found = reward_audit.row("s", Overlong(), said, [-0.5 if one[2] == "blind" else -1.0 for one in said])
    mean, low, high = found["blind"]
    assert mean == pytest.approx(-0.5)
    assert -1 < low < -0.5 < high < 0
    assert found["own"][0] == pytest.approx(-1)
    assert found["blind_as_much"][0] == 1
