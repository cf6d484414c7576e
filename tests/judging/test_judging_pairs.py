# Reference: the flaws by which the pairs were made, and verdicts by hand.
# Run: pytest tests/judging/test_judging_pairs.py
import csv
import json
import random
import signal
from contextlib import contextmanager
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

import train
from answering.grader import Grader, graded_answers
from artifacts.adapter_files import AdapterError
from artifacts.head_files import HEAD, read_head, write_head
from configs.schema import Component
from datamodules.phantoms.chest import ChestFilms
from datamodules.phantoms.pairs import PhantomPairs
from experiment.graders import grader_of
from judging.__main__ import main
from judging.cases import DIMENSIONS, SIDES
from judging.confidence import log_odds, stated, sure_reply
from judging.pairs import pair_cases
from judging.record import Record
from judging.sheet import load_sheet
from judging.trained import TrainedJudge
from judging.verdicts import released, strict

SMALL = {"n_patients": 20, "pairs": 1}


@pytest.fixture(autouse=True)
def _signals():
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def cases():
    return pair_cases(PhantomPairs(PhantomPairs.Config(**SMALL)))


def run(out, judge, *more):
    made = json.dumps({"class_path": "datamodules.phantoms.pairs.PhantomPairs", "init_args": SMALL})
    words = [f"out={out}", f"pairs={made}", f"judge.class_path={judge}", *more]
    return main(["run", "--config", "judging/pairs.yaml", *words])


def numbers(folder):
    with open(folder / "measures.csv", newline="") as file:
        return {(r["group"], r["dimension"], r["measure"]): r for r in csv.DictReader(file)}


def test_heuristics_judge_made_pairs_and_ties_do_not_count(tmp_path, capsys):
    for name in ("LongerAnswer", "Majority"):
        assert run(tmp_path / name, f"judging.heuristics.{name}") == 0
    assert main(["report", str(tmp_path / "LongerAnswer"), str(tmp_path / "Majority")]) == 0
    known = {case.question_id: case for case in cases()}
    found = numbers(tmp_path / "LongerAnswer")
    for name in (*DIMENSIONS, "all six"):
        outcomes = [
            case.truth[one] == SIDES[len(case.answers[1]) > len(case.answers[0])]
            for case in known.values()
            for one in DIMENSIONS
            if one in case.truth and name in (one, "all six")
        ]
        at = found["all cases", name, "accuracy"]
        assert (float(at["value"]), int(at["n"])) == (pytest.approx(np.mean(outcomes)), len(outcomes))
    assert int(found["all cases", "all six", "accuracy"]["n"]) < 6 * len(known)
    page = (tmp_path / "LongerAnswer" / "report.md").read_text()
    assert "made pairs" in page
    by_type = page.partition("## Accuracy by organ")[2].partition("##")[0].splitlines()
    counts = {cells[1].strip(): int(cells[2]) for cells in (line.split("|") for line in by_type[4:] if "|" in line)}
    kinds = [case.organ for case in known.values()]
    assert counts == {kind.replace("_", "\\_"): kinds.count(kind) for kind in kinds}  # cases, not verdicts
    assert "Calibration" not in page
    assert not (tmp_path / "LongerAnswer" / "released.csv").exists()
    assert main(["compare", str(tmp_path / "LongerAnswer"), str(tmp_path / "Majority")]) == 0
    assert len({line.cluster for line in Record(tmp_path / "Majority").lines()}) < len(known)  # by patient


def test_pairs_about_other_pictures_are_other_cases(tmp_path, monkeypatch, capsys):
    # the same patients, questions and answers, and other films
    monkeypatch.setattr("datamodules.phantoms.pairs.phantom_classes", lambda: (ChestFilms,))
    assert run(tmp_path / "o", "judging.heuristics.LongerAnswer") == 0
    asked = json.loads((tmp_path / "o/asked.json").read_text())
    before = cases()
    monkeypatch.setattr(ChestFilms, "draw", staticmethod(lambda case: Image.new("RGB", (8, 8), "white")))
    assert [case.answers for case in cases()] == [case.answers for case in before]
    assert run(tmp_path / "o", "judging.heuristics.LongerAnswer") != 0
    assert "data_sha256" in capsys.readouterr().err
    assert run(tmp_path / "p", "judging.heuristics.LongerAnswer") == 0
    assert json.loads((tmp_path / "p/asked.json").read_text())["cases"] == asked["cases"]
    assert main(["compare", str(tmp_path / "o"), str(tmp_path / "p")]) != 0
    assert "with other cases than" in capsys.readouterr().err


def test_a_release_and_pairs_together_are_refused(tmp_path, capsys):
    assert run(tmp_path / "o", "judging.heuristics.LongerAnswer", "data=somewhere") == 2
    assert "name either data, the folder of a release, or pairs" in capsys.readouterr().err
    assert run(tmp_path / "o", "judging.heuristics.LongerAnswer", "organs=[lung]") == 2


def test_stated_probabilities_are_read_and_verdicts_follow_them():
    draw = random.Random(0)
    for _ in range(200):
        held = {name: draw.random() for name in DIMENSIONS if draw.random() < 0.9}
        reply = sure_reply(held)
        whole = {name: held.get(name, 0.5) for name in DIMENSIONS}
        assert stated(reply) == whole
        expected = {name: "A" if value >= 0.5 else "B" for name, value in whole.items()}
        assert released(reply).verdicts == strict(reply).verdicts == expected
    even = dict.fromkeys(DIMENSIONS, "A")
    for reason in ("since", 3, None, {"accuracy": True, "overall": "0.5", "relevance": 1.5}):
        assert stated(json.dumps({**even, "reason": reason})) == {}
    assert stated("A") == {}
    odds = log_odds(np.array([0.0, 0.25, 0.5, 1.0]))
    assert np.isfinite(odds).all()
    assert odds[1:3] == pytest.approx([-np.log(3), 0.0])


class Known(Grader):
    """Rewards that are written into the answers."""

    def __init__(self, temperature=1.0, dimensions=DIMENSIONS):
        super().__init__(
            None, (), {}, {"dimensions": dimensions, "objective": "preference", "temperature": temperature}
        )

    @property
    def identity(self):
        return {"model": "known"}

    @contextmanager
    def acting(self):
        yield lambda asked: [torch.tensor([[float(len(text))] * len(self.dimensions) for text in a]) for _, a in asked]


def test_a_trained_judge_says_what_its_rewards_say(tmp_path, monkeypatch):
    monkeypatch.setattr(TrainedJudge, "grader", Known(temperature=40.0))
    for mode in ("pair", "score"):
        assert run(tmp_path / mode, "judging.trained.TrainedJudge", "judge.init_args.config=x", f"mode={mode}") == 0
    assert main(["report", str(tmp_path / "pair"), str(tmp_path / "score")]) == 0
    pair, score = (load_sheet(tmp_path / mode) for mode in ("pair", "score"))
    for one, other in zip(pair.cases, score.cases, strict=True):
        first, second = one.about.lengths
        longer = dict.fromkeys(DIMENSIONS, SIDES[second > first])
        assert one.given.verdicts == one.swapped.verdicts == longer
        assert one.strict.verdicts == longer
        assert stated(one.reply)["overall"] == pytest.approx(1 / (1 + np.exp(-(first - second) / 40)))
        assert set(other.given.verdicts.items()) <= set(longer.items())  # grades of very long answers may be equal
    found = numbers(tmp_path / "pair")
    assert found["all cases", "all six", "consistent"]["value"] == "1.0"
    page = (tmp_path / "pair" / "report.md").read_text()
    assert "## Calibration" in page
    assert (tmp_path / "pair" / "reliability.png").stat().st_size > 5000


def test_rewards_that_are_not_finite_are_no_verdict(monkeypatch):
    monkeypatch.setattr(TrainedJudge, "grader", Known())
    judge = TrainedJudge(TrainedJudge.Config(config="x"))
    whole = [[1.0] * 6, [0.0] * 6]
    assert released(judge.said(whole)).verdicts == dict.fromkeys(DIMENSIONS, "A")
    for value in (float("nan"), float("inf")):
        told = judge.said([[value, *whole[0][1:]], whole[1]])
        assert released(told).verdicts == strict(told).verdicts == {}
        assert stated(told) == {}


def test_a_verifier_is_no_judge(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("experiment.graders.grader_of", lambda *_: Known(dimensions=("right",)))
    assert run(tmp_path / "o", "judging.trained.TrainedJudge", "judge.init_args.config=x") == 1
    assert "a judge learns preferences on some of accuracy" in capsys.readouterr().err


def test_a_head_belongs_to_its_adapter(tmp_path, monkeypatch):
    adapter = tmp_path / "run" / "adapter"
    adapter.mkdir(parents=True)
    told = {"extra": {}}
    monkeypatch.setattr("artifacts.head_files.read_manifest", lambda folder: told)
    with pytest.raises(AdapterError, match="is no reward model"):
        read_head(adapter)
    weights = {"weight": torch.arange(6.0).reshape(2, 3), "bias": torch.zeros(2)}
    told["extra"]["head"] = write_head(adapter, weights, {"dimensions": ["a", "b"]})
    held, meaning = read_head(adapter)
    assert torch.equal(held["weight"], weights["weight"])
    assert meaning["dimensions"] == ["a", "b"]
    assert [path.name for path in adapter.parent.iterdir() if path.is_file()] == [HEAD]
    write_head(adapter, {**weights, "bias": torch.ones(2)}, {})
    with pytest.raises(AdapterError, match="is not the head that was trained with"):
        read_head(adapter)
    (adapter.parent / HEAD).unlink()
    with pytest.raises(AdapterError, match="is not there"):
        read_head(adapter)


def experiment(folder):
    sizes = {
        **{"vocab_size": 400, "hidden": 64, "layers": 2, "heads": 4, "intermediate": 96, "vision_hidden": 32},
        **{"vision_layers": 2, "corpus": "tests.conftest.corpus"},
    }
    content = {
        "trust": ["tests"],
        "model": {"class_path": "lightning_modules.families.tiny.TinyQwen2_5_VL", "init_args": sizes},
        "specialties": {"judge": {"class_path": "datamodules.phantoms.pairs.PhantomPairs", "init_args": SMALL}},
        "data": {"batch_size": 4, "val_questions": 6},
        "module": {"class_path": "lightning_modules.reward_model.RewardModel", "init_args": {"lora_rank": 2}},
        "trainer": {"max_steps": 2, "log_every_n_steps": 1},
        "runs_dir": str(folder / "runs"),
    }
    (folder / "reward.yaml").write_text(yaml.safe_dump(content))
    return folder / "reward.yaml"


@pytest.mark.slow
def test_from_training_to_a_judge_s_report(tmp_path, capsys):
    config = experiment(tmp_path)
    asked = ["judging.trained.TrainedJudge", f"judge.init_args.config={config}"]
    assert run(tmp_path / "early", *asked) == 1
    assert "no finished reward model" in capsys.readouterr().err
    assert train.main(["--config", str(config)]) == 0
    assert run(tmp_path / "out", *asked) == 0
    assert main(["report", str(tmp_path / "out")]) == 0
    # what the judge says is what the trained weights say of question and answers
    grader = grader_of(str(config), (), "judge")
    assert grader.temperature != 1.0
    known = {case.question_id: case for case in cases()}
    data = {e.question_id: e for e in PhantomPairs(PhantomPairs.Config(**SMALL)).splits["test"]}
    with grader.model.attached(grader.adapters) as policy:
        from lightning_modules.grading import RewardHead

        head = RewardHead(policy.family.hidden_size, grader.dimensions)
        head.load_state_dict(dict(grader.head))
        for line in Record(tmp_path / "out").lines()[:6]:
            example = data[line.question_id]  # its options stand apart here, and in the question's text there
            answers = known[line.question_id].answers[:: 1 if line.order == "given" else -1]
            (found,) = graded_answers(policy, head, [(example, answers)], 1000)
            odds = (found[0] - found[1]) / grader.temperature
            expected = dict(zip(grader.dimensions, odds.sigmoid().tolist(), strict=True))
            assert stated(line.reply) == pytest.approx(expected, abs=1e-5)
    assert run(tmp_path / "other", *asked, "judge.init_args.specialty=nobody") == 1
    assert "has no run 'nobody'" in capsys.readouterr().err


def test_lessons_are_the_command_s_own_messages_with_right_and_wrong_replies():
    from judging.lessons import VerdictLessons
    from judging.messages import instruction, message

    data = VerdictLessons(VerdictLessons.Config(pairs=Component("datamodules.phantoms.pairs.PhantomPairs", SMALL)))
    pairs = PhantomPairs(PhantomPairs.Config(**SMALL))
    for split, held in pairs.splits.items():
        found = {e.question_id: e for e in data.splits[split]}
        assert len(found) == 2 * len(held)
        for pair in held:
            for order, shown in (("given", pair), ("swapped", pair.swapped)):
                one = found[f"{pair.question_id}/{order}"]
                stem = "\n".join([shown.question, *(f"{a}) {o}" for a, o in zip("ABCDE", shown.options, strict=False))])
                assert one.question == message(instruction("pair"), stem, shown.answers, "pair")
                right, wrong = (strict(text).verdicts for text in one.answers)
                decided = {n: SIDES[w] for n in DIMENSIONS if (w := shown.winner(n)) is not None}
                assert decided.items() <= right.items()
                differing = {name for name in DIMENSIONS if right[name] != wrong[name]}
                assert differing
                assert differing <= set(decided) or not decided
    rows = data.rows()
    assert [(example.question_id, text) for example, _, text in rows] == [
        (example.question_id, example.answers[0]) for example in data.splits["train"]
    ]


def test_a_message_that_is_examined_is_not_trained_on(monkeypatch):
    from datamodules.check import quick_counts
    from judging.lessons import VerdictLessons

    pairs = PhantomPairs(PhantomPairs.Config(**SMALL))
    same = pairs.splits["test"][0]
    first = pairs.splits["train"][0]
    twin = replace(same, question_id=first.question_id, patient_id=first.patient_id, images=first.images)
    made = {**pairs.splits, "train": [twin, *pairs.splits["train"][1:]]}
    monkeypatch.setattr("judging.lessons.build", lambda *_, **__: SimpleNamespace(splits=made))
    lessons = VerdictLessons(VerdictLessons.Config())
    taught = {one.question_id for one in lessons.splits["train"]}
    assert not {f"{twin.question_id}/given", f"{twin.question_id}/swapped"} & taught
    assert len(taught) == 2 * (len(made["train"]) - 1)
    assert quick_counts({"judge": lessons})["judge"]["train"]["examples"] == len(taught)
