"""Reference: what a made server was asked and said, marks by hand. Run: pytest tests/judging/test_rubric_reward.py."""

import json
import re
import signal
import threading
import time
from dataclasses import replace

import pytest

from artifacts.interrupts import SIGNALS
from configs.load import load
from configs.problems import ConfigError
from configs.schema import Component
from configs.show import changed_settings
from datamodules.batch import image_key
from endpoints.answerer import UnusableError
from judging.judge import JudgeError
from judging.reward import RubricJudge, rubric_faults
from judging.rubrics import load_rubric
from lightning_modules.rewards.combine import Rewards, judged
from lightning_modules.rewards.correct import Correct
from lightning_modules.rewards.guidelines import load_guidelines
from tests.conftest import made_example
from tests.endpoints.fake_endpoint import Says, completion, serving

UNDER = load_guidelines(["differential"])["differential"]
REASONS = load_rubric("reasons")
NAMES = [one.name for one in REASONS.criteria]


def said(number: int, answer: str = "B") -> str:
    """A completion that is through the gates."""
    option = {"A": "narrow", "B": "wide", "C": "both"}[answer]
    return f"<think>heart {number} of 110, so the answer is {option}.</think><answer>{answer}</answer>"


def read(text: str, index: int = 0):
    return judged(text, made_example(index), UNDER)


def names_in(asked) -> list[str]:
    return re.findall(r"^- (\w+):", asked.text, re.MULTILINE)


def marks(**verdicts):
    """A server that gives each criterion the same verdict every time; yes where nothing is said."""
    return lambda asked, n: Says(completion(json.dumps({name: verdicts.get(name, "yes") for name in names_in(asked)})))


@pytest.fixture
def term(tmp_path):
    """Makes the term on a server."""

    def make(fake, more=None, folder="replies", **options):
        client = {"base_url": fake.url, "model": "fake-1", "retries": 0, "backoff_s": 0.0, "timeout_s": 5.0}
        client |= {"temperature": 0.0, "replies": str(tmp_path / folder), **options}
        judge = Component("judging.endpoint.EndpointJudge", client)
        return RubricJudge(RubricJudge.Config(judge=judge, **{"max_unknown": 1.0, **(more or {})}))

    return make


def test_the_score_is_the_share_of_criteria_that_are_met(term):
    with serving(marks(steps_follow="no")) as fake:
        made = term(fake)
        assert made.scores([read(said(62)), read("no answer")]) == [0.75, 0.0]  # 3 of 4; behind a gate nobody is asked
    assert len(fake.asked) == 2
    seen = image_key(made_example(0).images[0])
    # what needs no picture is asked without it
    assert {(tuple(names_in(asked)), asked.pictures) for asked in fake.asked} == {
        (("steps_follow", "conclusion_agrees"), ()),
        (("findings_true", "findings_enough"), (seen,)),
    }
    assert all(said(62) in asked.text and asked.content["temperature"] == 0 for asked in fake.asked)


def test_what_was_said_once_is_never_asked_again(term):
    with serving(marks(findings_true="no")) as fake:
        first = term(fake).scores([read(said(62)), read(said(62)), read(said(63)), read(said(62), 1)])
        assert first == [0.75] * 4
        assert len(fake.asked) == 5  # two texts without a picture; the second patient's picture with the first one
        assert term(fake).scores([read(said(63)), read(said(62))]) == [0.75, 0.75]
        assert len(fake.asked) == 5
        other = term(fake, {"rubric": "open"})
        assert other.scores([read(said(62))]) == [1.0]
        assert len(fake.asked) == 6  # another question to the same server is another request


LIES = {
    "broken": Says(b'{"choices": ['),
    "no words": Says(completion("")),
    "refused": Says(b"policy", status=400),
    "filtered": Says(completion("yes", finish="content_filter")),
    "out of order": Says(status=503),
    "gone": Says(reset=True),
    "half": Says(completion("x"), announced=100),
    "prose": Says(completion("I find all of this convincing: yes, yes, yes, yes.")),
    "another form": Says(completion('{"findings_true": "yes"}')),
    "a number": Says(completion(json.dumps(dict.fromkeys(NAMES, 1)))),
    "cut off": Says(completion('{"findings_true": "ye', finish="length")),
    "unclear": Says(completion(json.dumps(dict.fromkeys(NAMES, "unclear")))),
    "another model": Says(completion(json.dumps(dict.fromkeys(NAMES, "yes")), model="fake-2")),
}


@pytest.mark.parametrize("how", LIES)
def test_failure_is_unknown_and_never_a_score(term, how):
    """The first reasoning is marked; of the second one no criterion with a picture can be had."""

    def behave(asked, number):
        return LIES[how] if "heart 63" in asked.text and asked.pictures else marks()(asked, number)

    with serving(behave) as fake:
        rewards = Rewards([Correct(), term(fake, {"weight": 0.3}, concurrency=1, give_up_after=20)])
        good, lost, gated = rewards.together([read(said(62)), read(said(63)), read("63")])
    assert (good.parts["judge"], good.unknown, good.total) == (1.0, (), 1.3)
    assert (lost.parts["judge"], lost.unknown, lost.total) == (None, ("judge",), 1.0)
    assert (gated.parts["judge"], gated.unknown) == (0.0, ())


def test_a_server_that_answers_as_another_model_from_the_start_ends_the_run(term):
    with serving(lambda asked, n: Says(completion("{}", model="fake-2"))) as fake:
        with pytest.raises(JudgeError, match="answers as model 'fake-2'"):
            term(fake).scores([read(said(62))])
        assert len(fake.asked) == 1


def test_too_much_unknown_ends_the_run_with_the_reason(term):
    with serving(lambda asked, n: Says(status=503)) as fake:
        with pytest.raises(RuntimeError, match=r"judge: 2 of 2 reasonings .* max_unknown=0.5; .*HTTP 503"):
            term(fake, {"max_unknown": 0.5}).scores([read(said(62)), read(said(63))])
    with serving(lambda asked, n: Says(completion("yes"))) as fake:
        with pytest.raises(RuntimeError, match="do the replies of fake-1 fit the rubric's form"):
            term(fake, {"max_unknown": 0.5}).scores([read(said(62))])


def test_a_step_waits_no_longer_than_it_may(term):
    def behave(asked, number):
        return marks()(asked, number) if number == 1 else replace(marks()(asked, number), stall=0.6)

    with serving(behave) as fake:
        made = term(fake, {"limit_s": 0.3}, concurrency=1)
        began = time.monotonic()
        found = made.scores([read(said(number)) for number in range(60, 70)])
        assert time.monotonic() - began < 5
        assert len(fake.asked) < 6
        assert any(score != score for score in found)  # unknown
        patient = term(fake, {"limit_s": 30.0}, concurrency=8)
        assert patient.scores([read(said(number)) for number in range(60, 70)]) == [1.0] * 10


def test_one_attempt_has_a_deadline_and_so_many_are_under_way_at_once(term):
    crowd, now, most = threading.Condition(), [0], [0]

    def behave(asked, number):
        if "heart 60" in asked.text:
            return Says(completion("{}"), stall=40)
        with crowd:
            now[0] += 1
            most[0] = max(most[0], now[0])
            crowd.notify_all()
            if "heart 66" not in asked.text:  # the first is asked alone
                crowd.wait_for(lambda: most[0] > 1, timeout=2)
            now[0] -= 1
        return marks()(asked, number)

    with serving(behave) as fake:
        made, began = term(fake, timeout_s=4, concurrency=3), time.monotonic()
        assert made.scores([read(said(66))]) == [1.0]
        found = made.scores([read(said(number)) for number in range(60, 66)])
        assert time.monotonic() - began < 40  # the stalled one was given up
    assert [score == score for score in found] == [False, *[True] * 5]
    assert 1 < most[0] <= 3


def test_the_budget_holds_and_is_dealt_out_over_devices(term, tmp_path):
    with serving(marks()) as fake:
        found = term(fake, max_requests=4, concurrency=1).scores([read(said(number)) for number in range(60, 66)])
        assert len(fake.asked) == 4
        assert sum(score == score for score in found) == 2
    with serving(marks()) as fake:
        for rank in range(2):
            made = term(fake, folder=f"rank{rank}", max_requests=8, concurrency=1)
            made.begin(tmp_path, rank, 2)
            made.scores([read(said(number)) for number in range(60, 66)])
        assert len(fake.asked) == 8


def test_signals_are_left_to_the_run_which_hears_them_at_the_end_of_a_step(term):
    handlers, seen = [signal.getsignal(number) for number in SIGNALS], []

    def behave(asked, number):
        seen.append([signal.getsignal(number) for number in SIGNALS])
        return marks()(asked, number)

    with serving(behave) as fake:
        term(fake).scores([read(said(62))])
    assert seen == [handlers] * 2


def test_what_got_no_reply_in_a_step_that_was_taken_stays_unknown_for_the_run(term, tmp_path):
    lost = {said(61), said(64)}

    def down(asked, number):
        return Says(status=503) if any(text in asked.text for text in lost) else marks()(asked, number)

    texts = [said(number) for number in range(60, 66)]
    with serving(down) as fake:
        made = term(fake, give_up_after=20)
        made.begin(tmp_path / "run", 0, 1)
        first = made.scores([read(text) for text in texts])
        assert [score == score for score in first] == [text not in lost for text in texts]
        fake.behave = marks()  # it is well again
        asked = len(fake.asked)
        for again in (made, term(fake)):
            again.begin(tmp_path / "run", 0, 1)
            found = again.scores([read(text) for text in texts])
            assert [score == score for score in found] == [text not in lost for text in texts]
        assert len(fake.asked) == asked
        other = term(fake)  # another run, which may ask
        other.begin(tmp_path / "other", 0, 1)
        assert other.scores([read(text) for text in texts]) == [1.0] * 6
        assert not (tmp_path / "other/unanswered.0.json").exists()


def test_what_got_no_reply_in_a_step_that_was_refused_is_asked_again(term, tmp_path):
    with serving(lambda asked, n: Says(status=503)) as fake:
        made = term(fake, {"max_unknown": 0.4})
        made.begin(tmp_path, 0, 1)
        with pytest.raises(RuntimeError, match="could not be graded"):
            made.scores([read(said(62)), read(said(63))])
        fake.behave = marks()
        again = term(fake, {"max_unknown": 0.4})
        again.begin(tmp_path, 0, 1)
        assert again.scores([read(said(62)), read(said(63))]) == [1.0, 1.0]


def test_a_rehearsal_asks_nobody_and_tells_what_would_be_asked(term):
    with serving(marks()) as fake:
        made = term(fake, max_requests=700, price_prompt=1.0, max_cost=2.5)
        made.rehearse()
        assert made.scores([read(said(62)), read("no answer")]) == [0.5, 0.0]
        assert not fake.asked
        plan = made.plan(100)  # two groups of criteria
        assert f"at most 200 requests to fake-1 at {fake.url}, and those of cards, within max_requests=700" in plan
        assert "max_cost=2.5" in plan


def test_who_judged_is_told_apart_by_model_words_and_rubric(term, tmp_path):
    with serving(marks()) as fake:
        known = term(fake).identity
        assert known["model"] == "fake-1"
        assert "replies" not in known
        assert term(fake, concurrency=9, max_requests=3).identity == known
        file = tmp_path / "reasons.yaml"
        text = (load_rubric.__globals__["FOLDER"] / "reasons.yaml").read_text()
        file.write_text(text.replace("physician", "doctor"))
        others = [
            term(fake, temperature=0.1),
            term(fake, model="fake-2"),
            term(fake, system="be strict"),
            term(fake, {"rubric": "open"}),
            term(fake, {"rubric": str(file)}),
        ]
        assert all(other.identity != known for other in others)


def test_a_key_that_is_missing_is_told_before_anything_is_trained(term, monkeypatch):
    monkeypatch.delenv("MADE_KEY", raising=False)
    with serving(marks()) as fake:
        made = term(fake, key_variable="MADE_KEY")
        assert "MADE_KEY" not in json.dumps(made.identity)
        with pytest.raises(UnusableError, match="MADE_KEY"):
            made.check()


def test_rubrics_that_take_silence_for_a_no_are_refused():
    assert rubric_faults("reasons") == rubric_faults("open") == []
    assert "a reward must not" in rubric_faults("medevalkit")[0]
    assert "no such file" in rubric_faults("raisons")[0]


def test_how_a_judge_is_asked_may_change_in_a_folder_and_what_it_is_asked_may_not():
    def settings(**changes):
        client = {"base_url": "http://a/v1", "model": "m", "max_requests": 1, "replies": "here", "temperature": 0.0}
        judge = {"class_path": "judging.endpoint.EndpointJudge", "init_args": client | changes}
        return {"module": {"init_args": {"rewards": [{"class_path": "x", "init_args": {"judge": judge}}]}}}

    for free in ({"max_requests": 9}, {"replies": "there"}, {"concurrency": 2}, {"key_variable": "K"}):
        assert changed_settings(settings(), settings(**free)) == {}
    for decides in ({"model": "n"}, {"base_url": "http://b/v1"}, {"temperature": 1.0}, {"system": "s"}):
        assert list(changed_settings(settings(), settings(**decides))) == ["module.init_args.rewards"]


def test_settings_are_checked_with_the_file(tmp_path):
    rewards = [
        {"class_path": "lightning_modules.rewards.correct.Correct"},
        {"class_path": "judging.reward.RubricJudge", "init_args": {"rubric": "medevalkit", "limit_s": 0}},
    ]
    with pytest.raises(ConfigError) as told:
        load("rl_gba.yaml", [f"module.init_args.rewards={json.dumps(rewards)}"])
    for part in ("a reward must not", "limit_s", "judge"):
        assert part in str(told.value)
