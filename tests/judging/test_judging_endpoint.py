# Reference: what a made server was asked and said. Run: pytest tests/judging/test_judging_endpoint.py
import json
import re

import pytest

from datamodules.batch import image_key, load_image
from judging.__main__ import main
from judging.cases import DIMENSIONS
from judging.made import write_made
from judging.messages import instruction, message
from judging.record import Record
from judging.release import read_release
from judging.sheet import load_sheet
from tests.endpoints.fake_endpoint import Says, completion, serving

KEY = "sk-made-secret-key"
A = json.dumps(dict.fromkeys(DIMENSIONS, "A"))


@pytest.fixture(autouse=True)
def release(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MADE_KEY", KEY)
    write_made(tmp_path / "data", cases=2, organs=("brain", "lung"))
    return read_release(tmp_path / "data", ("brain", "lung")).cases


def run(fake, out="out", *more, **options):
    client = {"base_url": fake.url, "model": "fake-1", "key_variable": "MADE_KEY", "retries": 0, "concurrency": 1}
    judge = {"class_path": "judging.endpoint.EndpointJudge", "init_args": client | options}
    words = ["data=data", f"out={out}", "organs=[brain, lung]", f"judge={json.dumps(judge)}", *more]
    return main(["run", "--config", "judging/longer.yaml", *words])


def test_a_served_model_judges_and_its_key_is_nowhere(release, tmp_path, capsys):
    with serving(lambda asked, n: Says(completion(f"<think>{asked.headers['Authorization']}</think>{A}"))) as fake:
        assert run(fake) == 0
        assert run(fake) == 0
    assert len(fake.asked) == 8  # 4 cases in both orders, and nothing twice
    told = instruction("pair")
    shown = {
        (message(told, case.question, answers, "pair"), (image_key(load_image(case.picture)),))
        for case in release
        for answers in (case.answers, case.answers[::-1])
    }
    assert {(asked.text, asked.pictures) for asked in fake.asked} == shown
    for asked in fake.asked:
        assert (asked.content["temperature"], asked.content["max_tokens"], asked.system) == (0.1, 4096, "")
        assert [part["type"] for part in asked.content["messages"][0]["content"]] == ["image_url", "text"]
    assert len({asked.content["seed"] for asked in fake.asked}) == 8
    sheet = load_sheet(tmp_path / "out")
    assert [case.given.verdicts["overall"] + case.swapped.verdicts["overall"] for case in sheet.cases] == ["AB"] * 4
    assert main(["report", "out"]) == 0
    said = "".join(capsys.readouterr())
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert not any(KEY.encode() in path.read_bytes() for path in files)
    assert KEY not in said


def test_a_dry_run_tells_what_it_would_cost_and_asks_nobody(tmp_path, capsys):
    prices = {"price_prompt": 1e6, "price_completion": 2e6, "max_new_tokens": 100, "image_tokens": 1000, "retries": 2}
    with serving(lambda asked, n: Says(completion(A))) as fake:
        assert run(fake, "out", "--dry-run", **prices) == 0
        told = capsys.readouterr().out
        assert fake.asked == []
        assert sorted(path.name for path in tmp_path.iterdir()) == ["data"]
        money = float(re.search(r"at most \d+ tokens, ([\d.]+) in money", told)[1])
        assert "8 replies, 0 of them in out; 8 to come, 0 of them in runs/.replies" in told
        assert "up to 3 times that" in told
        assert run(fake, **prices) == 0
        # a picture is 1000 tokens, a message of so many bytes at most as many, an answer 100 at twice the price
        sent = [64 + len(asked.text.encode()) + 1000 + 2 * 100 for asked in fake.asked]
        assert money == sum(sent)
        assert run(fake, "out", "--dry-run", **prices) == 0
        assert "8 replies, 8 of them in out; 0 to come" in capsys.readouterr().out
        assert run(fake, "other", "--dry-run", "orders=given", **prices) == 0
        assert "4 to come, 4 of them in runs/.replies; the others at most 0 tokens, 0.00" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        main(["report", "out", "--dry-run"])


def test_a_spent_budget_or_an_outage_is_gone_on_from(tmp_path, capsys):
    with serving(lambda asked, n: Says(status=503) if 3 < n < 6 else Says(completion(A))) as fake:
        assert run(fake, max_requests=3) == 3
        assert "the budget is spent" in capsys.readouterr().err
        assert len(Record(tmp_path / "out").lines()) == 3
        assert run(fake, give_up_after=1) == 3  # the fourth; and no other, since it has no answer
        assert len(fake.asked) == 4
        assert main(["report", "out"]) == 1
        assert run(fake, give_up_after=1) == 3
        assert run(fake) == 0
    assert len(fake.asked) == 3 + 2 + 5
    assert len(Record(tmp_path / "out").lines()) == 8
    assert run(fake, "again") == 0  # nobody is there any more, and every reply is kept
    assert len(Record(tmp_path / "again").lines()) == 8


def test_what_is_no_answer_is_no_verdict(tmp_path, capsys):
    def behave(asked, number):
        if number == 2:
            return Says(b'{"error": "too large"}', status=400)
        if number == 3:
            return Says(completion("", finish="content_filter"))
        return Says(completion('{"accuracy": "A", "rel', finish="length") if number == 4 else completion(A))

    with serving(behave) as fake:
        assert run(fake, "out", "orders=given") == 0
    lines = Record(tmp_path / "out").lines()
    assert sorted((line.reply, line.truncated) for line in lines) == [
        *[("", False)] * 2,
        ('{"accuracy": "A", "rel', True),
        (A, False),
    ]
    with serving(lambda asked, n: Says(completion(A, model="fake-1-mini"))) as fake:
        assert run(fake, "other") == 1
    assert "the server answers as model 'fake-1-mini'" in capsys.readouterr().err
    assert not Record(tmp_path / "other").lines()


def test_what_is_refused_is_kept_where_only_that_is_left(tmp_path, capsys):
    with serving(lambda asked, n: Says(completion(A)) if n < 8 else Says(b"too large", status=400)) as fake:
        assert run(fake, max_requests=7) == 3
        assert run(fake) == 0  # the model answered the others, as its folder of replies shows
        assert len(fake.asked) == 8
        assert run(fake, "other", body={"top_k": 1}) == 3  # of a model asked so nothing is known
    assert not Record(tmp_path / "other").lines()
    assert "HTTP 400" in capsys.readouterr().err


def test_a_key_that_is_not_set_is_told(monkeypatch, tmp_path, capsys):
    monkeypatch.delenv("MADE_KEY")
    with serving(lambda asked, n: Says(completion(A))) as fake:
        assert run(fake) == 1
    assert "no key in the environment variable 'MADE_KEY'" in capsys.readouterr().err
    assert not fake.asked
    assert not (tmp_path / "out").exists()
