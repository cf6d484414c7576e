"""Reference: the uninterrupted run, and what a server was asked. Run: pytest tests/experiment/test_rubric_runs.py."""

import hashlib
import json
import re
import threading

import pytest
import yaml
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from judging.rubrics import load_rubric
from tests.endpoints.fake_endpoint import Says, completion, serving
from tests.experiment.test_resume import WEIGHTS, curves, point

LIGHT = ("name=marked", "callbacks.evaluate=null", "callbacks.cards=null", "callbacks.merge=null", "only=[alpha]")
KEY = "sk-made-secret-key"


def chance(*told: str) -> float:
    return int(hashlib.sha256("".join(told).encode()).hexdigest()[:8], 16) / 2**32


def marked(asked) -> Says:
    """A verdict on each criterion that is a function of what was asked alone."""
    names = re.findall(r"^- (\w+):", asked.text, re.MULTILINE)
    told = {name: "yes" if chance(name, asked.text, *asked.pictures) < 0.5 else "no" for name in names}
    return Says(completion(json.dumps(told), usage={"prompt_tokens": 10, "completion_tokens": 5}))


class Faulty:
    """Fails a share of the requests, each when it is first asked and never again; but for the very first."""

    def __init__(self, share: float):
        self.share, self.met, self.lock = share, set(), threading.Lock()

    def __call__(self, asked, number):
        what = asked.text + "".join(asked.pictures)
        with self.lock:
            first = what not in self.met and bool(self.met)
            self.met.add(what)
        return Says(status=503) if first and chance("fails", what) < self.share else marked(asked)


@pytest.fixture(scope="module")
def ready(based, tmp_path_factory):
    """The experts that are trained further."""
    made = based.copy(tmp_path_factory.mktemp("ready") / "runs")
    assert made.run("dsa", "only=[alpha]", "callbacks.cards=null") == 0
    return made


@pytest.fixture(autouse=True)
def _key(monkeypatch):
    monkeypatch.setenv("MADE_KEY", KEY)


def rewarded(machine, fake, *overrides, **more):
    """Run the experiment with a served model as a judge."""
    client = {"base_url": fake.url, "model": "fake-1", "key_variable": "MADE_KEY", "temperature": 0, "retries": 0}
    client |= {"replies": str(machine.runs / ".replies"), "give_up_after": 50, **more}
    judge = {"class_path": "judging.endpoint.EndpointJudge", "init_args": client}
    terms = [{"class_path": f"lightning_modules.rewards.{name}"} for name in ("correct.Correct", "format.Format")]
    terms.append({"class_path": "judging.reward.RubricJudge", "init_args": {"judge": judge, "max_unknown": 0.9}})
    return machine.run("gba", *LIGHT, f"module.init_args.rewards={json.dumps(terms)}", *overrides)


def test_rollouts_are_marked_the_judge_is_recorded_and_nothing_is_asked_twice(ready, tmp_path, capsys):
    made = ready.copy(tmp_path / "runs")
    with serving(lambda asked, n: marked(asked)) as fake:
        assert rewarded(made, fake, "--dry-run", max_requests=77) == 0
        assert not fake.asked
        assert (
            f"requests to fake-1 at {fake.url}, and those of cards, within max_requests=77" in capsys.readouterr().out
        )
        assert rewarded(made, fake) == 0
        asked = len(fake.asked)
        assert asked
        assert len({(one.text, one.pictures) for one in fake.asked}) == asked
        assert {one.headers["Authorization"] for one in fake.asked} == {f"Bearer {KEY}"}
        assert rewarded(made, fake, "name=again") == 0
        assert len(fake.asked) == asked  # the same rollouts, whose marks are known
        assert rewarded(made, fake, max_requests=1, concurrency=2) == 0  # is finished, however it would be asked
    one, two = (made.runs / name / "alpha" for name in ("marked", "again"))
    assert (one / WEIGHTS).read_bytes() == (two / WEIGHTS).read_bytes()
    events = EventAccumulator(str(one)).Reload()
    scores = [event.value for event in events.Scalars("train/reward/judge")]
    assert all(0 <= score <= 1 for score in scores)
    assert any(score > 0 for score in scores)
    (record,) = json.loads((one / "provenance.json").read_text())["judged_by"]
    assert (record["model"], record["base_url"], record["rubric"]) == ("fake-1", fake.url, "reasons")
    assert json.loads((one / "adapter/manifest.json").read_text())["extra"]["judged_by"] == [record]
    assert not any(KEY.encode() in path.read_bytes() for path in made.runs.rglob("*") if path.is_file())


def test_a_cut_run_goes_on_to_the_same_bytes_though_the_server_failed_and_is_well_again(ready, tmp_path, monkeypatch):
    whole, cut = ready.copy(tmp_path / "whole"), ready.copy(tmp_path / "cut")
    steps = "trainer.max_steps=4"
    with serving(Faulty(0.15)) as fake:
        monkeypatch.setattr("experiment.fit.ResumePoint", point(every=2))
        assert rewarded(whole, fake, steps) == 0
        every = len(fake.asked)
    with serving(Faulty(0.15)) as fake:
        monkeypatch.setattr("experiment.fit.ResumePoint", point(every=2, stop_at=3))
        assert rewarded(cut, fake, steps) == 130
        monkeypatch.setattr("experiment.fit.ResumePoint", point(every=2))
        before = len(fake.asked)
        assert rewarded(cut, fake, steps) == 0
        assert len(fake.asked) == every  # the third step was taken twice, and asked once
        assert before < every
    runs = [made.runs / "marked/alpha" for made in (whole, cut)]
    unknown = dict(curves(runs[0])["train/reward/unknown"])
    assert max(unknown.values()) > 0
    assert (runs[0] / WEIGHTS).read_bytes() == (runs[1] / WEIGHTS).read_bytes()
    first, second = map(curves, runs)
    assert first == second


def test_an_outage_ends_the_run_and_the_same_command_makes_it_good(ready, tmp_path, monkeypatch, capsys):
    whole, cut = ready.copy(tmp_path / "whole"), ready.copy(tmp_path / "cut")
    steps = "trainer.max_steps=4"
    monkeypatch.setattr("experiment.fit.ResumePoint", point(every=1))
    with serving(lambda asked, n: marked(asked)) as fake:
        assert rewarded(whole, fake, steps) == 0
        budget = len(fake.asked) // 2
    with serving(lambda asked, n: marked(asked)) as fake:
        assert rewarded(cut, fake, steps, max_requests=budget) != 0
        assert "the budget is spent" in capsys.readouterr().err
        assert len(fake.asked) == budget
        assert rewarded(cut, fake, steps, max_requests=10_000) == 0
    # what was paid for before is not paid again; a step that was left half judged is another one than with all grades
    assert (cut.runs / "marked/alpha" / WEIGHTS).exists()


def test_another_rubric_or_model_is_refused(ready, tmp_path, capsys):
    made, file = ready.copy(tmp_path / "runs"), tmp_path / "mine.yaml"
    file.write_text(yaml.safe_dump(rubric_of("Is every step sound?")))
    with serving(lambda asked, n: marked(asked)) as fake:

        def run():
            client = {"base_url": fake.url, "model": "fake-1", "temperature": 0, "replies": str(tmp_path / "kept")}
            judge = {"class_path": "judging.endpoint.EndpointJudge", "init_args": client}
            terms = [{"class_path": "lightning_modules.rewards.correct.Correct"}]
            options = {"judge": judge, "rubric": str(file)}
            terms.append({"class_path": "judging.reward.RubricJudge", "init_args": options})
            return made.run("gba", *LIGHT, f"module.init_args.rewards={json.dumps(terms)}")

        assert run() == 0
        file.write_text(yaml.safe_dump(rubric_of("Is any step sound?")))
        assert run() != 0
        assert "was rewarded by another judge" in capsys.readouterr().err
        file.write_text(yaml.safe_dump(rubric_of("Is every step sound?")))
        assert run() == 0


def rubric_of(question: str) -> dict:
    known = load_rubric("reasons")
    criterion = {"name": "sound", "part": "follows", "ask": question, "looks": False}
    return {"name": "mine", "source": "ours", "instruction": known.instruction, "criteria": [criterion]}
