"""Reference: what a made server was asked and answered. Run: pytest tests/experiment/test_behind_endpoint.py."""

import base64
import io
import json
import multiprocessing
import os
import signal
import sys
import threading
import time

import pytest
import yaml
from PIL import Image

import train
from configs.show import HOW_IT_IS_ASKED
from datamodules.batch import image_key, load_image
from datamodules.phantoms.chest import ChestFilms
from datamodules.phantoms.skin import SkinLesions
from datamodules.prompts import prompt_text
from endpoints.endpoint import DECIDES, Endpoint
from evaluation.official import medxpertqa
from evaluation.predictions import read_predictions
from evaluation.rescore import main as rescore
from tests.endpoints.fake_endpoint import Says, completion, serving

SETS = {"chest": ChestFilms, "skin": SkinLesions}
POPULATION = {"n_patients": 12, "val_fraction": 0.0, "test_fraction": 0.6}
N = 5
EVALUATE = "callbacks.evaluate.init_args."
USAGE = {"prompt_tokens": 700, "completion_tokens": 20, "total_tokens": 720}


@pytest.fixture(autouse=True)
def _signals():
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture(scope="module")
def known():
    """(prompt, picture) -> question, of all that are examined."""
    held = [example for data in SETS.values() for example in data(data.Config(**POPULATION)).splits["test"][:N]]
    return {(prompt_text(e, ""), image_key(load_image(e.images[0]))): e for e in held}


def honest(known, **changes):
    """A model that is right about chests and always says A about skins."""

    def behave(asked, number):
        example = known[asked.text, asked.pictures[0]]
        letter = example.letter if example.question_id.startswith("chest") else "A"
        text = f"<think>as seen</think><answer>{letter}</answer>"
        return Says(completion(text, usage=USAGE, **changes))

    return behave


class Machine:
    """An experiment file on a made server, and the command."""

    def __init__(self, folder, url, **options):
        folder.mkdir(parents=True, exist_ok=True)
        self.runs, self.file = folder / "runs", folder / "api.yaml"
        given = {"base_url": url, "model": "fake-1", "retries": 1, "backoff_s": 0.01, "timeout_s": 5.0, **options}
        content = {
            "model": {"class_path": "endpoints.endpoint.Endpoint", "init_args": given | {"give_up_after": 4}},
            "specialties": {
                name: {"class_path": f"{data.__module__}.{data.__name__}", "init_args": POPULATION}
                for name, data in SETS.items()
            },
            "callbacks": {
                "evaluate": {"class_path": "callbacks.evaluate_experts.EvaluateExperts", "init_args": {"n": N}}
            },
            "workers": 2,
        }
        self.file.write_text(yaml.safe_dump(content))

    def run(self, *overrides):
        return train.main(["--config", str(self.file), f"runs_dir={self.runs}", *overrides])

    @property
    def folder(self):
        return self.runs / "api" / "evaluation"


def everything(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_a_model_behind_an_endpoint_is_examined_like_any_other(tmp_path, known, monkeypatch, capsys):
    monkeypatch.setenv("MADE_KEY", "sk-made-secret")
    with serving(honest(known)) as fake:
        machine = Machine(tmp_path, fake.url, key_variable="MADE_KEY", price_prompt=2.0, price_completion=10.0)
        assert machine.run() == 0
        assert len(fake.asked) == len(known) == 2 * N
        assert machine.run() == 0  # everything is known
        assert machine.run("name=other", f"{EVALUATE}n={N - 1}") == 0  # other cells, of questions that were asked
    assert len(fake.asked) == 2 * N
    assert {asked.headers["Authorization"] for asked in fake.asked} == {"Bearer sk-made-secret"}
    assert {(asked.content["temperature"], asked.content["max_tokens"]) for asked in fake.asked} == {(0.0, 96)}
    rows = read_predictions(machine.runs / "api")
    assert {row.model for row in rows} == {"fake-1"}
    assert {(row.prompt_tokens, row.n_tokens, row.fault) for row in rows} == {(700, 20, "")}
    scores = json.loads((machine.folder / "scores.json").read_text())["fake-1"]
    right = {name: sum(e.letter == "A" for e in known.values() if e.question_id.startswith(name)) for name in SETS}
    assert (scores["chest"]["accuracy"], scores["skin"]["accuracy"]) == (1.0, right["skin"] / N)
    text = (machine.folder / "report.md").read_text()
    # 10 answers: 7000 tokens of prompts at 2 and 200 of answers at 10 per million
    assert "| fake-1 | 10 | 0 | 7000 | 200 | 0.0160 |" in text
    capsys.readouterr()
    assert rescore([str(machine.runs / "api")]) == 0
    assert "| fake-1 | 10 | 0 | 7000 | 200 | 0.0160 |" in capsys.readouterr().out
    written = b"".join(everything(tmp_path).values())
    assert b"sk-made" not in written
    assert b"MADE_KEY" in written


def test_what_the_model_would_not_answer_counts_as_wrong_and_is_told(tmp_path, known):
    kinds = [{"status": 400}, {"finish": "content_filter"}, {"content": ""}, {"finish": "length"}, {}]
    order = {key: kinds[i % len(kinds)] for i, key in enumerate(sorted(known, key=str))}

    def behave(asked, number):
        example, kind = known[asked.text, asked.pictures[0]], order[asked.text, asked.pictures[0]]
        if "status" in kind:
            return Says(b'{"error": "policy"}', status=400)
        text = kind.get("content", f"<think>as seen</think><answer>{example.letter}</answer>")
        return Says(completion(text, finish=kind.get("finish", "stop"), usage=USAGE))

    with serving(behave) as fake:
        machine = Machine(tmp_path, fake.url)
        assert machine.run() == 0
    faults = sorted(row.fault for row in read_predictions(machine.runs / "api"))
    assert faults == [""] * 4 + ["empty"] * 2 + ["filtered"] * 2 + ["refused"] * 2
    rows = read_predictions(machine.runs / "api")
    assert sum(row.truncated for row in rows) == 2
    assert all(row.completion for row in rows if row.truncated)  # what came of a cut answer is kept
    assert all(not row.completion for row in rows if row.fault)
    assert (
        "| fake-1 | 10 | empty 2, filtered 2, refused 2 | 5600 | 160 | no price |"
        in (machine.folder / "report.md").read_text()
    )


def test_a_server_that_refuses_everything_has_not_answered_anything(tmp_path, known, capsys):
    tell = honest(known)

    def refuse_skins(asked, number):
        return tell(asked, number) if known[asked.text, asked.pictures[0]].question_id.startswith("chest") else refusal

    refusal = Says(b'{"error": "unknown field seed"}', status=400)
    with serving(lambda asked, number: refusal) as fake:
        machine = Machine(tmp_path, fake.url)
        assert machine.run("model.init_args.give_up_after=50") == 1
        assert "HTTP 400" in capsys.readouterr().err
        assert not list((machine.runs / ".replies").rglob("*.json"))
        assert not list(machine.folder.glob("cells/*.jsonl"))
        # it answers others: what it refuses is refused, be it all that is left to ask
        fake.behave = refuse_skins
        assert machine.run("model.init_args.give_up_after=50", f"{EVALUATE}rows_at_once=1") == 0
    rows = read_predictions(machine.runs / "api")
    assert {(row.specialty, row.fault) for row in rows} == {("chest", ""), ("skin", "refused")}


def test_liars_and_outages_give_no_answers_and_the_same_command_goes_on(tmp_path, known, capsys):
    tell, lie = honest(known), honest(known, model="other-7b")
    bad = [lie, lambda asked, n: Says(b"<html>log in</html>"), lambda asked, n: Says(status=503)]

    def behave(asked, number):
        place = sorted(known, key=str).index((asked.text, asked.pictures[0]))
        return bad[place % 4](asked, number) if place % 4 < 3 and number > 1 else tell(asked, number)

    with serving(behave) as fake:
        machine = Machine(tmp_path, fake.url, concurrency=1)
        assert machine.run() == 1
        said = capsys.readouterr().err
        assert "run the same command again to go on" in said
        assert not list(machine.folder.glob("cells/*.jsonl"))
        kept = len(list((machine.runs / ".replies").rglob("*.json")))
        fake.asked.clear()
        fake.behave = tell
        assert machine.run() == 0
        assert len(fake.asked) == len(known) - kept
    assert all(not row.fault for row in read_predictions(machine.runs / "api"))


def test_a_spent_budget_is_raised_and_nothing_is_asked_twice(tmp_path, known, capsys):
    with serving(honest(known)) as fake:
        machine = Machine(tmp_path, fake.url, price_prompt=1.0, concurrency=1)
        assert machine.run("model.init_args.max_requests=3") == 1
        assert "the budget is spent" in capsys.readouterr().err
        assert len(fake.asked) == 3
        # in money: not even one attempt at its upper bound is left
        assert machine.run("model.init_args.max_cost=0.000001") == 1
        assert len(fake.asked) == 3
        assert machine.run("model.init_args.max_cost=1", "model.init_args.concurrency=4") == 0
        assert len(fake.asked) == len(known)
        assert machine.run("model.init_args.model=fake-2") == 2  # another model is another experiment
    assert "model.init_args.model" in capsys.readouterr().err


def test_who_decides_the_temperature_stands_beside_the_answers(tmp_path, known):
    with serving(honest(known)) as fake:
        machine = Machine(tmp_path, fake.url, body={"temperature": None}, limit_field="max_completion_tokens")
        assert machine.run() == 0
    assert not {"temperature", "max_tokens"} & fake.asked[0].content.keys()
    assert fake.asked[0].content["max_completion_tokens"] == 96
    assert {row.protocol["temperature"] for row in read_predictions(machine.runs / "api")} == {"the server's"}


def test_jobs_that_share_a_matrix_share_its_budget(tmp_path, known, capsys):
    with serving(honest(known)) as fake:
        machine = Machine(tmp_path, fake.url, concurrency=1)
        pieces = f"{EVALUATE}rows_at_once=1"
        for share in ("1/2", "2/2"):
            assert machine.run(pieces, "model.init_args.max_requests=3", "--part", share) == 1
            assert "the budget is spent" in capsys.readouterr().err
        assert len(fake.asked) == 3  # 2 and 1
        assert machine.run(pieces) == 0
    assert len(fake.asked) == len(known)


def test_two_turns_are_the_release_s(tmp_path, known):
    first = {
        (medxpertqa.first_turn(medxpertqa.released_question(e.question, e.options)), picture): e
        for (_, picture), e in known.items()
    }

    def behave(asked, number):
        messages = asked.content["messages"]
        assert [m["role"] for m in messages][:2] == ["system", "user"]
        assert messages[0]["content"] == medxpertqa.SYSTEM
        words, picture = messages[1]["content"]  # the picture stands behind the words
        file = io.BytesIO(base64.b64decode(picture["image_url"]["url"].partition(",")[2]))
        example = first[words["text"], image_key(Image.open(file).convert("RGB"))]
        if len(messages) == 2:
            return Says(completion("It looks wide.", usage=USAGE))
        assert messages[2] == {"role": "assistant", "content": "It looks wide."}
        assert messages[3]["content"] == medxpertqa.second_turn(len(example.options))
        assert asked.content["max_tokens"] == 16
        return Says(completion(f"{example.letter}.", usage=USAGE))

    with serving(behave) as fake:
        machine = Machine(tmp_path, fake.url)
        assert machine.run(f"{EVALUATE}protocol=two_turn", f"{EVALUATE}answer_tokens=16") == 0
        assert len(fake.asked) == 2 * len(known)
    rows = read_predictions(machine.runs / "api")
    assert {(row.turns, row.prompt_tokens, row.n_tokens) for row in rows} == {(("It looks wide.",), 1400, 40)}
    assert "official:medxpertqa" in (machine.folder / "report.md").read_text()
    assert json.loads((machine.folder / "scores.json").read_text())["fake-1"]["skin"]["accuracy"] == 1.0


@pytest.mark.parametrize(
    ("setting", "word"),
    [
        (f"{EVALUATE}protocol=likelihood", "chat endpoints write text alone"),
        (f"{EVALUATE}routers=[oracle]", "routers=[]"),
        ("callbacks.layout={class_path: callbacks.layout.ScalarLayout}", "works on weights"),
        ("module={class_path: lightning_modules.sft_lora.SFTLoRA}", "cannot be trained"),
        ("model.init_args.key_variable=MADE_KEY", "no key in the environment variable 'MADE_KEY'"),
    ],
)
def test_what_needs_weights_is_refused_before_anything_is_asked(tmp_path, known, monkeypatch, capsys, setting, word):
    monkeypatch.delenv("MADE_KEY", raising=False)
    with serving(honest(known)) as fake:
        further = ["trainer.max_steps=1"] if setting.startswith("module") else []
        assert Machine(tmp_path, fake.url).run(setting, *further) in (1, 2)
    assert word in capsys.readouterr().err
    assert not fake.asked


def test_a_dry_run_tells_what_it_would_cost_at_most_and_asks_nobody(tmp_path, known, capsys):
    with serving(honest(known)) as fake:
        machine = Machine(tmp_path, fake.url, price_completion=1000.0)
        assert machine.run("--dry-run") == 0
        assert not fake.asked
        said = capsys.readouterr().out
        # 10 answers of at most 96 tokens, at 1000 per million; one further attempt each
        assert "10 answers of fake-1 to come, 0 of them known; the others at most" in said
        assert " tokens, 0.96 in money; up to 2 times that" in said
        assert machine.run() == 0
        assert machine.run("--dry-run", f"{EVALUATE}n=4") == 0
    assert (
        "8 answers of fake-1 to come, 8 of them known; the others at most 0 tokens, 0.00 in money"
        in capsys.readouterr().out
    )


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_a_run_that_is_stopped_goes_on_without_asking_again(tmp_path, known, number):
    tell, enough, release = honest(known), threading.Event(), threading.Event()

    def halting(asked, n):
        if n > 5:
            enough.set()
            release.wait(60)
        return tell(asked, n)

    def stoppable():
        signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job ignores Ctrl-C
        sys.exit(machine.run())

    with serving(halting) as fake:
        machine = Machine(tmp_path / "parts", fake.url, concurrency=2, timeout_s=60.0)
        process = multiprocessing.get_context("fork").Process(target=stoppable)
        process.start()
        assert enough.wait(60)
        os.kill(process.pid, number)
        time.sleep(0.5)  # the signal is heard before what is under way comes
        release.set()
        process.join(60)
        assert process.exitcode == (130 if number == signal.SIGINT else -number)
        kept = len(list((machine.runs / ".replies").rglob("*.json")))
        assert 3 <= kept <= len(fake.asked) < len(known)
        fake.asked.clear()
        fake.behave = tell
        assert machine.run() == 0
        assert len(fake.asked) == len(known) - kept
        whole = Machine(tmp_path / "whole", fake.url)
        assert whole.run() == 0
    for name in ("predictions.jsonl", "matrix.csv", "report.md", "scores.json"):
        assert (machine.folder / name).read_bytes() == (whole.folder / name).read_bytes()


def test_every_setting_either_decides_replies_or_may_change():
    assert sorted((*DECIDES, *HOW_IT_IS_ASKED)) == sorted(Endpoint.Config.__dataclass_fields__)
