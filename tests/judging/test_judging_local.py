# Reference: the same messages put to the same base one by one, outside the command.
# Run: pytest tests/judging/test_judging_local.py
import json
import shutil
import sys
from contextlib import nullcontext
from dataclasses import replace
from types import SimpleNamespace

import pytest
import yaml

import train
from answering.decoding import Decoding
from datamodules.batch import Example
from judging.__main__ import main
from judging.judge import Request
from judging.local import LocalJudge
from judging.made import write_made
from judging.messages import instruction, message
from judging.record import Record
from judging.release import read_release
from tests.experiment.conftest import SOURCE, experiments, write_bars

ORGANS = ("brain", "lung")


@pytest.fixture(scope="module")
def machine(tmp_path_factory):
    """An experiment file with a trained base, and a made release."""
    folder = tmp_path_factory.mktemp("local_judge")
    (folder / "made_bars.py").write_text(SOURCE)
    sys.path.insert(0, str(folder))
    for name in ("alpha", "beta"):
        write_bars(folder / "data" / name, name[0])
    for name, content in experiments(folder).items():
        (folder / f"{name}.yaml").write_text(yaml.safe_dump({**content, "runs_dir": str(folder / "runs")}))
    write_made(folder / "release", cases=1, organs=ORGANS)
    try:
        assert train.main(["--config", str(folder / "base.yaml")]) == 0
        yield folder
    finally:
        sys.path.remove(str(folder))
        sys.modules.pop("made_bars", None)


def run(machine, out, *more):
    options = {"config": str(machine / "dsa.yaml"), "max_new_tokens": 8, "temperature": 1.0, "rows_at_once": 3}
    judge = json.dumps({"class_path": "judging.local.LocalJudge", "init_args": options})
    words = [f"data={machine / 'release'}", f"out={out}", "organs=[brain, lung]", f"judge={judge}"]
    return main(["run", "--config", "judging/longer.yaml", *words, *more])


@pytest.mark.slow
def test_a_model_of_ours_judges_and_goes_on(machine, tmp_path, capsys):
    assert run(machine, tmp_path / "out") == 0
    lines = Record(tmp_path / "out").lines()
    assert len(lines) == 4
    assert len({line.reply for line in lines}) > 1
    # what is asked is the message and the picture, and a reply depends on nothing beside it
    from answering.asking import ask

    cases = {case.case_id: case for case in read_release(machine / "release", ORGANS).cases}
    judge = LocalJudge(LocalJudge.Config(config=str(machine / "dsa.yaml"), max_new_tokens=8, temperature=1.0))
    with judge.model.acting([]) as policy:
        for line in lines:
            case = cases[f"{line.organ}/{line.question_id}"]
            answers = case.answers if line.order == "given" else case.answers[::-1]
            said = message(instruction("pair"), case.question, answers, "pair")
            question = Example("p", (case.picture,), said, (), "x", line.key)
            assert len(policy.prompt(question, "").images) == 1
            (answer,) = ask(policy, [question], "", Decoding(8, 1.0))
            assert (answer.completion, answer.truncated) == (line.reply, line.truncated)
    shutil.copytree(tmp_path / "out", tmp_path / "cut")
    whole = (tmp_path / "cut" / "replies.jsonl").read_bytes()
    (tmp_path / "cut" / "replies.jsonl").write_bytes(whole[: whole.index(b"\n") + 20])
    assert run(machine, tmp_path / "cut") == 0
    assert (tmp_path / "cut" / "replies.jsonl").read_bytes() == whole
    assert main(["report", str(tmp_path / "cut")]) == 0
    assert run(machine, tmp_path / "cut", "judge.init_args.seed=1") == 1
    assert "other settings (judge:" in capsys.readouterr().err


@pytest.mark.slow
def test_what_the_model_cannot_take_is_refused_by_name(machine, tmp_path, capsys):
    assert run(machine, tmp_path / "long", "judge.init_args.max_new_tokens=100000000") == 1
    assert "is max_new_tokens (100000000) too large here?" in capsys.readouterr().err
    assert run(machine, tmp_path / "lost", "judge.init_args.adapters=[nowhere]") == 1
    assert "'nowhere' holds no finished adapter" in capsys.readouterr().err


def test_a_reply_depends_on_its_request_alone(tiny_policy, tmp_path):
    release = read_release(write_made(tmp_path, cases=2, organs=ORGANS), ORGANS)
    asked = [
        Request(case.case_id, case.case_id, f"Who wins? {case.question}", (case.picture,), case.answers, case.question)
        for case in release.cases
    ]

    def replies(rows_at_once, requests):
        judge = LocalJudge(LocalJudge.Config("none", max_new_tokens=6, temperature=1.0, rows_at_once=rows_at_once))
        judge.model = SimpleNamespace(acting=lambda folders: nullcontext(tiny_policy))
        return {request.key: reply.text for request, reply in judge.replies(requests)}

    together = replies(16, asked)
    assert len(set(together.values())) > 1
    assert replies(1, asked[::-1]) == together
    assert replies(3, asked[1:2]) == {asked[1].key: together[asked[1].key]}
    turned = replies(16, [replace(request, pictures=()) for request in asked])
    assert turned != together
