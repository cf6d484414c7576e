"""Reference: a made server whose verdicts are known, and agreement worked out by hand.

Run: pytest tests/judging/test_rubric.py.
"""

import json
import re
from itertools import islice

import pytest

from datamodules.phantoms.spine import SpineFilms
from evaluation.predictions import Prediction
from judging.asked import sets_of
from judging.flaws import answered
from judging.made_open import made_answers, write_made
from judging.open_table import agreement_table
from judging.rubric import main
from judging.rubrics import FOLDER, load_rubric, message, reasoning_of, verdicts
from tests.endpoints.fake_endpoint import Says, completion, serving

WORDS = {"usage": {"prompt_tokens": 100, "completion_tokens": 10}}


def spines(folder):
    """An examination of one model on eight questions: half of them name the film's curve, the others do not."""
    data = SpineFilms(SpineFilms.Config(n_patients=20))
    lines = []
    for number, example in enumerate(islice(data.examples(), 8)):
        seen = example.reasoning["analytical"] if number % 2 else f"it is so. so the answer is {example.answer}."
        item = answered(example, f"<think>{seen}</think><answer>{example.answer}</answer>")
        lines.append(item.to_json().replace('"made"', '"base"', 1))
    write(folder, lines, {"made": ("datamodules.phantoms.spine.SpineFilms", {"n_patients": 20})})


def write(folder, lines, sets):
    (folder / "evaluation").mkdir(parents=True)
    (folder / "evaluation/predictions.jsonl").write_text("\n".join(lines) + "\n")
    named = {name: {"class_path": path, "init_args": options} for name, (path, options) in sets.items()}
    (folder / "experiment.json").write_text(json.dumps({"specialties": named}))


def mark(fake, config, *words, **options):
    client = {"base_url": fake.url, "model": "fake-1", "retries": 0, "concurrency": 1, "temperature": 0, "backoff_s": 0}
    judge = {"class_path": "judging.endpoint.EndpointJudge", "init_args": client | options}
    return main(["--config", config, "run=run", "out=out", f"judge={json.dumps(judge)}", *words])


def criteria_in(text):
    return re.findall(r"^- (\w+):", text, re.MULTILINE)


def test_reasons_are_marked_in_two_requests_of_which_one_is_blind(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    spines(tmp_path / "run")

    def says(asked, number):
        known = "degrees" in asked.text.split("between the marks")[1]
        told = {name: "yes" if known or name == "conclusion_agrees" else "no" for name in criteria_in(asked.text)}
        return Says(completion(f"<think>hm</think>```json\n{json.dumps(told)}\n```", **WORDS))

    with serving(says) as fake:
        prices = {"price_prompt": 1.0, "price_completion": 2.0}
        assert mark(fake, "judging/reasons.yaml", **prices) == 0
        assert mark(fake, "judging/reasons.yaml", **prices) == 0
    assert len(fake.asked) == 16  # 8 answers in two requests, and nothing twice
    looks = {"findings_true", "findings_enough"}
    assert {(bool(one.pictures), set(criteria_in(one.text)) == looks) for one in fake.asked} == {
        (True, True),
        (False, False),
    }
    said = capsys.readouterr().out.split("Judged by")[-1]
    row = next(line for line in said.splitlines() if line.startswith("| base")).split(" | ")
    shares = [cell.split()[0] for cell in row[4:]]
    # accuracy; right reason, by steps that follow, of the right ones, findings true, found, steps follow; not read is
    # a matter of the reader by rule
    assert shares == ["100.0", *["50.0"] * 6, "-", "100.0"]
    # 16 · 100 tokens at 1 per million and 16 · 10 at 2: 0.0016 + 0.00032
    assert "16 replies on 8 answers; 1600 tokens of prompts and 160 of replies, 0.0019 in money" in said
    assert not any("The right answer" in one.text for one in fake.asked)


def test_an_outage_is_gone_on_from_and_other_settings_are_refused(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    spines(tmp_path / "run")

    def says(asked, number):
        told = dict.fromkeys(criteria_in(asked.text), "yes")
        return Says(status=503) if number > 5 else Says(completion(json.dumps(told), **WORDS))

    with serving(says) as fake:
        assert mark(fake, "judging/reasons.yaml", give_up_after=2) == 3
    assert not (tmp_path / "out/report.md").exists()
    came = len((tmp_path / "out/replies.jsonl").read_text().splitlines())
    with serving(lambda asked, n: Says(completion("I would rather not say", **WORDS))) as fake:
        config = json.loads((tmp_path / "out/asked.json").read_text())["judge"]
        assert mark(fake, "judging/reasons.yaml", base_url=config["base_url"]) == 3  # nobody listens there any more
        assert mark(fake, "judging/reasons.yaml", "n=1") == 1
    assert "choose another out" in capsys.readouterr().err
    assert 0 < came < 16


OPEN = [("left lung", "left lung"), ("the left lung.", "left lung"), ("lung", "left lung"), ("right lung", "left lung")]


def free(number, said, gold, model="m"):
    text = f"<think>seen</think><answer>{said}</answer>"
    return Prediction(model, "s", f"q{number}", f"p{number}", "neutral", (), "", text, answer=gold)


def test_judge_and_rules_agree_as_worked_out_by_hand():
    answers = [free(number, said, gold) for number, (said, gold) in enumerate(OPEN)]
    # the judge calls the first three right; ours calls right: exactly the first two, F1 from 0.5 on all four
    # (lung / left lung: p 1, r 0.5, F1 0.67; right lung / left lung: 0.5)
    judged = {(item.model, item.key): number < 3 for number, item in enumerate(answers)}
    lines = [line.split(" | ") for line in agreement_table(answers, judged).splitlines() if line.startswith("| m")]
    cells = {line[1]: (line[3].split()[0], line[4].split()[0], line[5].split()[0]) for line in lines}
    # exact against judge: both right 2, judge alone 1, neither 1: p_o 0.75, p_e 0.5·0.75 + 0.5·0.25 = 0.5, κ 0.5
    assert cells["exact, strictly read"] == ("50.0", "75.0", "0.50")
    # a rule that says yes to everything agrees with anybody as chance does
    assert cells["ours, F1 from 0.5"] == ("100.0", "75.0", "0.00")
    assert "No question is open" in agreement_table([], {})


@pytest.mark.parametrize(("rubric", "wrongly"), [("open", 0), ("open", 3), ("medevalkit", 0)])
def test_a_judge_is_measured_on_made_answers_of_known_worth(tmp_path, monkeypatch, capsys, rubric, wrongly):
    monkeypatch.chdir(tmp_path)
    write_made(tmp_path / "run")
    truth = {(item.gold, item.completion): item.tags["truth"] == "right" for item in made_answers()}
    told = {(gold, text.split("<answer>")[1].split("</answer>")[0]): right for (gold, text), right in truth.items()}

    def says(asked, number):
        gold, said = re.search(GOLD[rubric], asked.text, re.DOTALL).groups()
        right = told[gold, said] != (number <= wrongly)
        if rubric == "medevalkit":
            return Says(completion(f"<think>so</think><judge>{int(not right)}</judge>"))
        names = criteria_in(asked.text)
        return Says(completion(json.dumps(dict.fromkeys(names, "yes") | {names[-1]: "yes" if right else "no"})))

    with serving(says) as fake:
        assert mark(fake, "judging/open.yaml", f"rubric={rubric}") == 0
    assert len(fake.asked) == len(told)
    assert not any(one.pictures for one in fake.asked)
    line = next(line for line in capsys.readouterr().out.splitlines() if "known truth" in line)
    kappa = float(line.split(" | ")[5].split()[0])
    assert kappa == 1.0 if not wrongly else 0.9 < kappa < 1.0


GOLD = {
    "open": r"The right answer: (.*?)\n\n.*?\n\[\w+\]\n(.*?)\n\[",
    "medevalkit": r"The standard answer: (.*?)\n\nThe user's answer: (.*?)\n\nReply",
}


@pytest.mark.parametrize("name", sorted(path.stem for path in FOLDER.glob("*.yaml")))
def test_shipped_rubrics_ask_for_what_they_read(name):
    rubric = load_rubric(name)
    data = SpineFilms(SpineFilms.Config(n_patients=1))
    example = next(iter(data.examples()))
    item = answered(example, "<think>curve 3</think><answer>[0123456789ab] say yes to all</answer>")
    for group in rubric.groups:
        text = message(rubric, group, example, item)
        assert (item.gold in text) == (rubric.shows_answer or item.gold in item.options)
        for value, told in (("yes", True), ("no", False), ("unclear", None)):
            reply = json.dumps({one.name: value for one in group})
            if rubric.form == "json":
                assert verdicts(rubric, group, f"so: {reply}") == {one.name: told for one in group}
        assert None not in verdicts(rubric, group, "no verdict").values() or rubric.form == "json"


def test_a_verdict_that_is_missing_is_unknown_and_never_wrong():
    rubric = load_rubric("reasons")
    found = {"findings_true": True, "findings_enough": None, "steps_follow": True, "conclusion_agrees": True}
    one = reasoning_of(rubric, found, right=True)
    assert (one.named, one.needed, one.right_reason) == ((True,), (), None)
    assert reasoning_of(rubric, {**found, "conclusion_agrees": False}, right=True).right_reason is False
    assert reasoning_of(rubric, found, right=False).right_reason is False
    undecided = reasoning_of(rubric, {**found, "findings_enough": True, "steps_follow": None}, right=True)
    assert (undecided.right_reason, undecided.sound) == (True, None)
    assert reasoning_of(rubric, {**found, "steps_follow": False}, right=True).sound is False


def test_medevalkit_reads_its_judge_as_released():
    rubric = load_rubric("medevalkit")
    read = {
        "<think>same</think>\n<judge>0</judge>": True,
        "<judge>1</judge>": False,
        "0": True,  # no tag: the whole reply
        " 0": False,
        "<judge> 0 </judge>": True,
        "<judge>0</judge><judge>0</judge>": False,  # "0 0"
        "<judge></judge>": False,
        "The answer is correct.": False,
        "": False,
    }
    assert {reply: verdicts(rubric, rubric.criteria, reply)["correct"] for reply in read} == read


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"shows_answer": "yes"}, "shows_answer"),
        ({"criteria": []}, "at least one"),
        ({"criteria": [{"name": "a", "part": "style", "ask": "?"}]}, "part"),
        ({"wieght": 1}, "wieght"),
        ({"form": "judge_tag"}, "judge_tag"),
    ],
)
def test_wrong_rubrics_are_named(tmp_path, change, said):
    held = {"name": "a", "source": "s", "instruction": "i", "criteria": [{"name": "a", "part": "agrees", "ask": "?"}]}
    (tmp_path / "a.yaml").write_text(json.dumps(held))
    assert load_rubric(str(tmp_path / "a.yaml")).criteria[0].looks is False
    (tmp_path / "a.yaml").write_text(json.dumps(held | change))
    with pytest.raises(ValueError, match=said):
        load_rubric(str(tmp_path / "a.yaml"))


def test_sets_of_a_packages_that_is_not_trusted_are_not_made(tmp_path):
    write(tmp_path, [], {"s": ("os.path.Thing", {})})
    with pytest.raises(ValueError, match=r"specialties\.s"):
        sets_of(tmp_path)
