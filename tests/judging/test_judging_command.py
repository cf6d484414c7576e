# Reference: a made release, judges whose verdicts are known, and what the command leaves on disk.
# Run: pytest tests/judging/test_judging_command.py
import csv
import json
import random
import shlex
import signal
import sys
from collections import Counter
from pathlib import Path

import pytest

from judging.__main__ import main
from judging.cases import DIMENSIONS
from judging.made import main as made
from judging.made import write_made
from judging.official import organ_accuracy
from judging.record import Record, RecordError
from judging.sheet import load_sheet
from tests.judging.replies import reply

JUDGES = """
import json
import os
import signal
from dataclasses import dataclass
from judging.cases import DIMENSIONS
from judging.judge import Judge, JudgeError, Reply

class Scripted(Judge):
    @dataclass(frozen=True)
    class Config:
        says: str = "A"
        stops_after: int = 1000
        signals: bool = False

    def __init__(self, config):
        self.config = config

    @property
    def identity(self):
        return {"judge": "scripted", "says": self.config.says}

    def replies(self, requests):
        for number, request in enumerate(requests):
            if number == self.config.stops_after and self.config.signals:
                os.kill(os.getpid(), signal.SIGTERM)
            if number == self.config.stops_after:
                raise JudgeError("the line went dead")
            assert request.pictures and all(text in request.prompt for text in request.answers)
            says = self.config.says
            if says == "length":
                says = json.dumps(dict.fromkeys(DIMENSIONS, min(10, len(request.answers[0]) // 20)))
            if says == "longest first":
                first = max(range(len(request.answers)), key=lambda i: len(request.answers[i]))
                says = json.dumps(dict.fromkeys(DIMENSIONS, "AB" if first == 0 else "BA"))
            yield request, Reply(says)
"""


@pytest.fixture(autouse=True)
def _place(tmp_path, monkeypatch):
    """A made release and judges of ours in the working folder; signals are given back."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    write_made(tmp_path / "data", cases=2)
    (tmp_path / "scripted_judges.py").write_text(JUDGES)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield
    sys.modules.pop("scripted_judges", None)
    for number, handler in before.items():
        signal.signal(number, handler)


def run(out, judge="judging.heuristics.LongerAnswer", *more):
    words = ["data=data", f"out={out}", f"judge.class_path={judge}", "trust=[scripted_judges]", *more]
    return main(["run", "--config", "judging/longer.yaml", *words])


def scripted(out, says, *more):
    return run(out, "scripted_judges.Scripted", f"judge.init_args.says={json.dumps(says)}", *more)


def numbers(folder):
    with open(f"{folder}/measures.csv", newline="") as file:
        return {(r["group"], r["dimension"], r["measure"]): r for r in csv.DictReader(file)}


def test_heuristics_from_command_to_tables(tmp_path, capsys):
    for name in ("LongerAnswer", "FirstAnswer", "Random", "Majority"):
        assert run(name, f"judging.heuristics.{name}") == 0
        assert main(["report", name]) == 0
        assert {path.name for path in (tmp_path / name).iterdir()} == {
            *("asked.json", "replies.jsonl", "report.md", "measures.csv", "released.csv", "report.png"),
        }
    truths = {case.about.question_id: case.about.truth for case in load_sheet(tmp_path / "Random").cases}
    first, longer, drawn, most = map(numbers, ("FirstAnswer", "LongerAnswer", "Random", "Majority"))
    for dimension in DIMENSIONS:
        counts = Counter(truth[dimension] for truth in truths.values())
        at = ("all cases", dimension, "accuracy")
        assert float(first[at]["value"]) == pytest.approx(counts["A"] / 26)
        assert float(most[at]["value"]) == pytest.approx(max(counts.values()) / 26)
        assert float(most["all cases", dimension, "accuracy_mean"]["value"]) == 0.5
        assert first[at]["n"] == "26"
    both = ("all cases", "all six")
    assert float(first[*both, "first"]["value"]) == 1
    assert float(first[*both, "consistent"]["value"]) == 0
    assert float(longer[*both, "consistent"]["value"]) == 1 == float(longer[*both, "longer"]["value"])
    assert 0.2 < float(drawn[*both, "consistent"]["value"]) < 0.8
    # the mean of organs of as many cases each is the mean of cases
    at = ("mean of organs", "overall", "accuracy")
    assert float(longer[at]["value"]) == pytest.approx(float(longer["all cases", "overall", "accuracy"]["value"]))
    released = list(csv.DictReader(open("LongerAnswer/released.csv", newline="")))
    cases = [case for case in load_sheet(tmp_path / "LongerAnswer").cases if case.about.organ == "lung"]
    by_hand = organ_accuracy(
        {case.about.question_id: case.about.truth for case in cases},
        [(case.about.question_id, case.reply) for case in cases],
    )
    (lung,) = [row for row in released if row["modality"] == "lung"]
    assert {name: float(lung[f"{name}_acc"]) for name in DIMENSIONS} == by_hand
    capsys.readouterr()
    assert main(["compare", "FirstAnswer", "LongerAnswer", "Random", "--baseline", "FirstAnswer", "--out", "vs"]) == 0
    told = capsys.readouterr().out
    assert "Krippendorff" in told
    assert (tmp_path / "vs" / "compare.csv").exists()
    rows = list(csv.DictReader(open("vs/compare.csv", newline="")))
    assert [row["specialty"] for row in rows[:2]] == ["all six", "accuracy"]
    assert len(rows) == 14
    expected = float(longer[*both, "accuracy"]["value"]) - float(first[*both, "accuracy"]["value"])
    assert float(rows[0]["difference"]) == pytest.approx(expected)


def test_a_stopped_run_goes_on_where_it_stopped(tmp_path, capsys):
    assert scripted("out", "[[B]]", "judge.init_args.stops_after=7") == 1
    assert "the line went dead" in capsys.readouterr().err
    held = (tmp_path / "out" / "replies.jsonl").read_bytes()
    assert held.count(b"\n") == 7
    assert main(["report", "out"]) == 1  # what was not asked must not count as wrong
    assert "7 of 52 replies are there" in capsys.readouterr().err
    (tmp_path / "out" / "replies.jsonl").write_bytes(held + b'{"key": "torn')
    assert scripted("out", "[[B]]") == 0
    whole = (tmp_path / "out" / "replies.jsonl").read_bytes()
    assert whole.startswith(held)
    assert whole.count(b"\n") == 52
    assert scripted("other", "[[B]]") == 0
    assert (tmp_path / "other" / "replies.jsonl").read_bytes() == whole
    assert scripted("out", "[[B]]", "judge.init_args.stops_after=0") == 0  # nobody is asked again


def test_a_signal_ends_a_run_and_loses_nothing(tmp_path, capsys):
    assert scripted("out", "[[B]]", "judge.init_args.stops_after=5", "judge.init_args.signals=true") == 130
    assert "the same command goes on" in capsys.readouterr().err
    assert (tmp_path / "out" / "replies.jsonl").read_bytes().count(b"\n") == 5
    assert scripted("out", "[[B]]") == 0


def test_judges_of_one_name_are_told_apart_by_their_folders(tmp_path, capsys):
    assert scripted("one/out", "[[A]]") == scripted("two/out", "[[B]]") == 0
    capsys.readouterr()
    assert main(["compare", "one/out", "two/out"]) == 0
    assert "two/out | one/out" in capsys.readouterr().out


def test_replies_of_the_released_scripts_are_scored_as_there(tmp_path, capsys):
    draw, lines = random.Random(0), []
    assert run("truth") == 0
    cases = load_sheet(tmp_path / "truth").cases
    for case in cases * 2:  # some twice, some never
        if draw.random() < 0.6:
            about = {"question_id": case.about.question_id, "modality_type": case.about.organ}
            lines.append({**about, "chosen_answer": reply(draw), "answer_model": "x"})
    (tmp_path / "pair_x.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    judge = ("judging.replayed.Replayed", "judge.init_args.file=pair_x.jsonl")
    assert run("both", *judge) == 1
    assert "say orders=given" in capsys.readouterr().err
    assert run("x", *judge, "orders=given") == main(["report", "x"]) == 0
    assert main(["compare", "truth", "x"]) == 0
    with open("x/released.csv", newline="") as file:
        table = {row["modality"]: row for row in csv.DictReader(file)}
    for organ in table:
        truths = {c.about.question_id: c.about.truth for c in cases if c.about.organ == organ}
        said = [(line["question_id"], line["chosen_answer"]) for line in lines if line["modality_type"] == organ]
        assert {name: float(table[organ][f"{name}_acc"]) for name in DIMENSIONS} == organ_accuracy(truths, said)
    for wrong in ({"modality_type": "Lung"}, {"chosen_answer": {"overall": "A"}}, {"question_id": None}):
        (tmp_path / "pair_x.jsonl").write_text(json.dumps({**lines[0], **wrong}) + "\n")
        assert run("y", *judge, "orders=given") == 1
        assert "pair_x.jsonl, row 1" in capsys.readouterr().err


def test_another_judge_or_wording_or_data_is_refused(tmp_path, capsys):
    assert scripted("out", "[[B]]") == 0
    (tmp_path / "words.txt").write_text("Who wins?\n")
    for more in (("says",), ("wording", "instruction=words.txt"), ("mode", "mode=score"), ("cases", "organs=[lung]")):
        assert scripted("out", "[[A]]" if more[0] == "says" else "[[B]]", *more[1:]) == 1
        err = capsys.readouterr().err
        assert "was made with other settings" in err
        assert more[0] in err
    lines = (tmp_path / "data/pair_gt_all/lung.jsonl").read_text()
    turned = lines.replace('"A"', '"?"').replace('"B"', '"A"').replace('"?"', '"B"')
    (tmp_path / "data/pair_gt_all/lung.jsonl").write_text(turned)
    assert scripted("out", "[[B]]") == 1
    assert "data_sha256" in capsys.readouterr().err


def test_the_swapped_order_can_be_asked_later(tmp_path):
    assert scripted("out", "[[B]]", "orders=given") == 0
    sheet = load_sheet(tmp_path / "out")
    assert not sheet.both_orders
    assert main(["report", "out"]) == 0
    assert "the swapped order was not asked" in (tmp_path / "out/report.md").read_text()
    assert scripted("out", "[[B]]") == 0
    assert load_sheet(tmp_path / "out").both_orders


def test_unread_replies_are_wrong_and_the_article_counts(tmp_path):
    assert scripted("dropped", "A or B, who knows") == 0
    assert scripted("article", "It is a close call.") == 0
    for name in ("dropped", "article"):
        assert main(["report", name]) == 0
    dropped, article = numbers("dropped"), numbers("article")
    at = ("all cases", "all six")
    assert (dropped[*at, "accuracy"]["value"], dropped[*at, "answered"]["value"]) == ("0.0", "0.0")
    assert dropped[*at, "kappa"]["value"] == dropped[*at, "first"]["value"] == ""
    assert (article[*at, "answered"]["value"], article[*at, "strictly_answered"]["value"]) == ("1.0", "0.0")
    assert float(article[*at, "first"]["value"]) == 1


def test_score_and_batch_modes(tmp_path, capsys):
    assert scripted("scored", "length", "mode=score") == 0
    assert scripted("ordered", "longest first", "mode=batch") == 0
    assert run("longer") == 0
    sheets = [load_sheet(tmp_path / name) for name in ("scored", "ordered", "longer")]
    assert [len(sheet.cases) for sheet in sheets] == [26, 26, 26]
    longer = [case.given.verdicts for case in sheets[2].cases]
    assert [case.given.verdicts for case in sheets[1].cases] == longer
    for case, expected in zip(sheets[0].cases, longer, strict=True):
        assert case.given.verdicts == ({} if case.given.ties else expected)
    for name in ("scored", "ordered"):
        assert main(["report", name]) == 0
        assert not (tmp_path / name / "released.csv").exists()
    assert "answers were graded one by one" in (tmp_path / "scored/report.md").read_text()
    assert run("refused", "judging.heuristics.LongerAnswer", "mode=score") == 1
    assert "LongerAnswer knows pair" in capsys.readouterr().err
    assert main(["compare", "scored", "longer"]) == 1
    assert "another mode" in capsys.readouterr().err


def test_the_user_s_words_are_put_as_they_stand(tmp_path):
    (tmp_path / "words.txt").write_text("Who wins? {A}\n")
    assert scripted("out", "[[B]]", "instruction=words.txt") == 0
    assert Record(tmp_path / "out").asked()["wording"] == "Who wins? {A}"


def test_wrong_commands_and_damaged_folders(tmp_path, capsys):
    assert main(["run", "--config", "judging/longer.yaml", "data=data", "out=o", "mode=pairs", "ordres=both"]) == 2
    err = capsys.readouterr().err
    assert "pair" in err
    assert "orders" in err
    assert main(["report", "nowhere"]) == 1
    assert "is nowhere the folder of a judge?" in capsys.readouterr().err
    assert scripted("out", "[[B]]") == 0
    path = tmp_path / "out" / "replies.jsonl"
    lines = path.read_text().splitlines()
    for damaged in (json.dumps({**json.loads(lines[0]), "truth": {}}), "no JSON", lines[1]):
        path.write_text("\n".join([damaged, *lines[1:]]) + "\n")
        assert main(["report", "out"]) == 1
        assert "replies.jsonl, line" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["compare", "out"])
    with pytest.raises(SystemExit):
        main(["run"])


def test_two_processes_do_not_write_into_one_folder(tmp_path, capsys):
    assert scripted("out", "[[B]]", "orders=given") == 0
    with Record(tmp_path / "out").writer(Record(tmp_path / "out").asked()):
        assert scripted("out", "[[B]]") == 1
    assert "another process" in capsys.readouterr().err


def test_who_begins_second_leaves_what_is_asked_to_the_first(tmp_path, monkeypatch):
    check, looks = Record.check, []

    def another_begins(record, asked):
        check(record, asked)
        looks.append(asked)
        if len(looks) == 1:  # both have seen a new folder, and the other one is faster
            with Record(tmp_path / "new").writer({"mode": "pair"}):
                pass

    monkeypatch.setattr(Record, "check", another_begins)
    with pytest.raises(RecordError, match='mode: "pair" there, "score" now'):
        with Record(tmp_path / "new").writer({"mode": "score"}):
            pass
    assert Record(tmp_path / "new").asked()["mode"] == "pair"


def test_the_example_of_the_docs_runs(tmp_path):
    root = Path(main.__globals__["__file__"]).parents[1]
    block = (root / "docs" / "judging.md").read_text().split("```\n")[1].replace("--cases 6", "--cases 1")
    for line in block.splitlines():
        words = shlex.split(line)
        assert words[:2] == ["python", "-m"]
        command = {"judging": main, "judging.made": made}[words[2]]
        assert command(words[3:]) == 0, line
    assert (tmp_path / "judged/compared/compare.png").exists()
    assert (tmp_path / "judged/random/report.png").exists()
