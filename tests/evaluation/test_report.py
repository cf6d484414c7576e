# Reference: the board, headroom.csv, compare and the answers themselves, against what stands in the pages; and texts
# that try to act. Run: pytest tests/evaluation/test_report.py
import base64
import csv
import hashlib
import io
import json
import re
import shutil
import sys
from html.parser import HTMLParser

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch.utils.tensorboard import SummaryWriter

from callbacks.evaluation_board import write_board
from datamodules.batch import Example
from evaluation import compare
from evaluation.headroom import headroom, headroom_csv
from evaluation.kept import kept_column
from evaluation.matrix_table import matrix_csv
from evaluation.predictions import Prediction
from evaluation.report.__main__ import main
from evaluation.report.cases import Gallery, add_probes
from evaluation.report.curves import curves_of
from evaluation.report.pages import homes_of
from evaluation.report.questions import Questions, questions_of
from evaluation.scoring import matrix
from evaluation.verdict import verdict
from tests.browser import Browser

HOSTILE = (
    "<script>window.acted = 1</script>",
    "<img src=x onerror='window.acted=1'>",
    "</script><script>window.acted=1</script>",
    '"><svg onload=window.acted=1>',
    "{{ 7 * 7 }} {% raw %} ${7*7} $x^2$ \\frac",
    "javascript:window.acted=1 \u202e\u0000\ud800 ]]><!--",
)
DATA = '''"""Made for a test: texts that try to act, and pictures of one colour."""

from PIL import Image

from datamodules.base import VQADataModule
from datamodules.batch import Example

HOSTILE = {hostile!r}


class Rows(VQADataModule):
    """Ten questions, two of each patient about one picture."""

    def examples(self):
        for i in range(10):
            text, patient = HOSTILE[i % len(HOSTILE)].replace("\\ud800", ""), f"p{{i // 2}}"
            picture = Image.new("RGB", (600, 300), (20 * (i // 2), 90, len(self.specialty)))
            options = (f"yes {{text}}", f"no {{text}}")
            yield Example(patient, (picture,), f"{{text}} {{i}}?", options, options[0], f"q{{i}} {{text}}",
                          {{"neutral": text}}, {{"question_type": f"kind {{text}} {{i % 2}}"}})
'''
COMPONENT = {"class_path": "made_rows.Rows", "init_args": {"val_fraction": 0.0, "test_fraction": 0.5}}
RIGHT = {"base": 3, "sft/a": 6, "sft/b": 5, "gba/a": 7, "gba/b": 6, "gba/merged/mean": 5, "gba/merged/ties.rejected": 2}


def answered(data, column, models=tuple(RIGHT)):
    """What models answered: so many of ten right, others unread."""
    for model in models:
        for i, one in enumerate([one for part in data.splits.values() for one in part]):
            letter = one.letter if (3 * i + len(model)) % 10 < RIGHT[model] else "?"
            text = f"<think>{HOSTILE[i % len(HOSTILE)]}</think><answer>{letter}</answer>"
            asked = (model, column, one.question_id, one.patient_id, "neutral", one.options, one.letter, text)
            yield Prediction(*asked, tags=dict(one.tags), n_tokens=9)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """An experiment's folder as a run leaves it, every text in it hostile."""
    root = tmp_path_factory.mktemp("report")
    (root / "code").mkdir()
    (root / "code/made_rows.py").write_text(DATA.format(hostile=HOSTILE))
    sys.path.insert(0, str(root / "code"))
    from made_rows import Rows

    sets = {name: Rows(Rows.Config(**COMPONENT["init_args"]), specialty=name, seed=0) for name in ("a", "b", "kept")}
    folder = root / "runs/gba"
    (folder / "evaluation").mkdir(parents=True)
    predictions = [item for name in ("a", "b") for item in answered(sets[name], name)]
    predictions.sort(key=lambda item: list(RIGHT).index(item.model))
    kept = list(answered(sets["kept"], "kept"))
    lines = ["".join(item.to_json() + "\n" for item in items) for items in (predictions, kept)]
    lines = [text.replace("\ud800", "\\ud800") for text in lines]  # as JSON may spell it
    (folder / "evaluation/predictions.jsonl").write_text(lines[0])
    (folder / "evaluation/kept.jsonl").write_text(lines[1])
    write_board(folder / "evaluation", matrix(predictions), clean(predictions), (), kept_column(kept))
    settings = {
        "name": "gba",
        "seed": 0,
        "description": HOSTILE[0],
        "specialties": {"a": COMPONENT, "b": COMPONENT},
        "callbacks": {"evaluate": {"class_path": "x.Y", "init_args": {"kept": COMPONENT}}},
        "trust": ["made_rows"],
    }
    (folder / "experiment.json").write_text(json.dumps(settings))
    for name in ("a", "b"):
        with SummaryWriter(folder / name) as writer:
            for step, value in enumerate((0.25, 0.5, 0.75)):
                writer.add_scalar(f"val/accuracy/{name}", value, 10 * step)
        (folder / name / "timings.json").write_text(
            '{"batches": 20, "rollouts": 80, "cpu_s": 12.5, "memory/peak_mib": 9}'
        )
        probe = next(iter(sets[name].splits["val"] or sets[name].splits["train"]))
        reward = {
            "reward": {"total": 1.1, "correct": 1.0, "format": None},
            "right": True,
            "gate": None,
            "advantage": 0.5,
        }
        rows = [
            {
                "step": step,
                "question_id": probe.question_id,
                "gold": "A",
                "guideline": "neutral",
                "completion": HOSTILE[1],
            }
            for step in (0, 5, 20)
        ]
        (folder / name / "samples.jsonl").write_text("".join(json.dumps(row | reward) + "\n" for row in rows))
    conflict = {
        "names": ["a", HOSTILE[1]],
        "experts": {
            n: {"norm": 2.0, "retention": -0.25, "interference": 0.5, "survival": None} for n in ("a", HOSTILE[1])
        },
        "gates": {"verdict": "warn", "gates": [{"verdict": "warn", "text": HOSTILE[3], "check": "base"}]},
        "findings": [HOSTILE[0]],
    }
    (folder / "merged/mean").mkdir(parents=True)
    (folder / "merged/mean/conflict.json").write_text(json.dumps(conflict))
    yield folder, predictions, kept
    sys.path.remove(str(root / "code"))


def clean(predictions):
    """The same answers without what no file holds."""
    return [Prediction.from_json(item.to_json().replace("\ud800", "")) for item in predictions]


@pytest.fixture(scope="module")
def report(made, tmp_path_factory):
    """The report of that folder."""
    out = tmp_path_factory.mktemp("out") / "report"
    assert main([str(made[0]), "--out", str(out), "--trust", "made_rows"]) == 0
    return out


class Page(HTMLParser):
    """Tables by id, tags, scripts and attributes of a page."""

    def __init__(self, text):
        super().__init__(convert_charrefs=True)
        self.tables, self.tags, self.attributes, self.scripts, self.items = {}, [], [], [], []
        self.table = self.cell = self.script = None
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        if tag == "table":
            self.table = self.tables.setdefault(dict(attrs).get("id"), [])
        if tag == "tr":
            self.table.append([])
        if tag in ("td", "th", "li"):
            self.cell = []
        if tag == "script":
            self.script = []

    def handle_endtag(self, tag):
        if tag in ("td", "th"):
            self.table[-1].append("".join(self.cell))
            self.cell = None
        if tag == "li":
            self.items.append("".join(self.cell))
            self.cell = None
        if tag == "script":
            self.scripts.append("".join(self.script))
            self.script = None

    def handle_data(self, data):
        for held in (self.cell, self.script):
            if held is not None:
                held.append(data)


def pages(report):
    return {name: Page((report / name).read_text("utf-8")) for name in ("index.html", "cases.html")}


def data(report):
    return json.loads(pages(report)["cases.html"].scripts[0])


def test_the_matrix_is_the_board_s_and_that_of_the_file(report, made):
    folder, predictions, kept = made
    table = pages(report)["index.html"].tables["matrix1"]
    events = EventAccumulator(str(folder / "evaluation"), size_guidance={"scalars": 0})
    events.Reload()
    rows = {row[0]: row[1:] for row in table[1:]}
    held = {
        row["model"]: row for row in csv.DictReader(io.StringIO(matrix_csv(matrix(predictions), kept_column(kept))))
    }
    assert set(held) <= set(rows)
    for model, of in held.items():
        for place, column in enumerate(("a", "b")):
            told = [float(one) / 100 for one in re.findall(r"[\d.]+", rows[model][place])]
            assert told == pytest.approx(
                [float(of[f"{column}/{key}"]) for key in ("accuracy", "low", "high")], abs=6e-4
            )
            drawn = events.Scalars(f"test/accuracy/{column}/{model.replace('/', '.')}")[0].value
            assert told[0] == pytest.approx(drawn, abs=6e-4)
        assert float(rows[model][2]) / 100 == pytest.approx(float(of["macro/accuracy"]), abs=6e-4)
        assert float(rows[model][3].split(",")[0].split(" ")[0]) / 100 == pytest.approx(
            float(of["kept/accuracy"]), abs=6e-4
        )


def test_verdict_headroom_pairs_conflicts_and_costs_are_what_their_own_programs_say(report, made, capsys):
    folder, predictions, kept = made
    page = pages(report)["index.html"]
    sentences = [f"{claim.sentence}." for claim in verdict(predictions, kept)]
    assert sentences
    assert page.items[: len(sentences)] == sentences
    recovered = list(csv.DictReader(io.StringIO(headroom_csv(headroom(predictions)))))
    told = page.tables["headroom1"][1:]
    assert [row[:4] for row in told] == [
        [row[key] for key in ("model", "specialty", "n", "patients")] for row in recovered
    ]
    for row, of in zip(told, recovered, strict=True):
        assert [float(cell) / 100 for cell in row[4:7]] == pytest.approx(
            [float(of[key]) for key in ("base", "experts", "agent")], abs=6e-4
        )
    assert compare.main([str(folder)]) == 0
    printed = [
        re.split(r" \| ", line.strip("| ")) for line in capsys.readouterr().out.splitlines() if line.startswith("|")
    ]
    assert [[cell.replace("\\", "") for cell in row] for row in printed[2:]] == [
        [cell.replace("\\", "") for cell in row] for row in page.tables["pairs1"][1:]
    ]
    assert page.tables["conflicts1"][1] == ["mean", "a", "2.000", "-0.250", "0.500", "-"]
    assert page.tables["costs"][1] == ["gba", "2", "40", "160", "25", "9"]


def test_nothing_in_data_becomes_markup_or_script(report):
    for name, page in pages(report).items():
        text = (report / name).read_text("utf-8")
        policy = next(value for tag, key, value in page.attributes if tag == "meta" and value.startswith("default-src"))
        assert policy.startswith("default-src 'none'; ")
        assert "unsafe" not in policy
        acting = page.scripts[-1:]
        for script in acting:
            digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
            assert f"script-src 'sha256-{digest}';" in policy
        assert len(page.scripts) == (2 if name == "cases.html" else 1), "a script of the data"
        assert not {"svg", "iframe", "object", "embed", "base", "link"} & set(page.tags)
        assert not [one for one in page.attributes if one[1].startswith("on")]
        sources = [value for _, key, value in page.attributes if key in ("src", "href", "action")]
        assert all(re.fullmatch(r"figures/[\w.-]+\.svg|cases\.html|index\.html|#[\w-]+", value) for value in sources)
        assert "<img src=x" not in text
    shown = "".join(pages(report)["index.html"].items)
    assert HOSTILE[0] in shown  # as text
    assert any("{{ 7 * 7 }}" in case["question"] for case in data(report)["cases"])


def test_every_answer_is_there_as_it_was_given_and_read(report, made):
    _, predictions, kept = made
    held = data(report)
    given = {
        (case["specialty"], case["id"], held["models"][one["model"]]): one
        for case in held["cases"]
        for one in case["answers"]
        if case["kind"] != "probes of training"
    }
    assert len(given) == len(predictions) + len(kept)
    for item in [*predictions, *kept]:
        one = given[item.specialty, item.question_id, item.model]
        assert one["text"].replace("\\ud800", "\ud800") == item.completion
        assert one["right"] == (item.answer_letter in item.completion.rpartition("<answer>")[2][:1])
        assert one["said"] == (item.answer_letter if one["right"] else "")
    probes = [case for case in held["cases"] if case["kind"] == "probes of training"]
    assert [len(case["answers"]) for case in probes] == [2, 2]  # of the first and the last look
    assert probes[0]["answers"][0]["rewards"] == {"total": 1.1, "correct": 1.0, "format": None, "advantage": 0.5}
    assert all(case["question"] and case["pictures"] and case["reference"] for case in held["cases"])


def test_a_picture_is_written_once_and_bounded(report):
    from PIL import Image

    held = data(report)
    used = {name for case in held["cases"] for name in case["pictures"]}
    files = sorted(file.name for file in (report / "pictures").iterdir())
    assert files == sorted(used)
    assert len(files) == 10  # five patients of two specialties; the kept set's are one pixel value from theirs
    for file in (report / "pictures").iterdir():
        assert hashlib.sha256(file.read_bytes()).hexdigest().startswith(file.stem)
        assert Image.open(file).size == (512, 256)


def test_few_cases_say_of_how_many(made, tmp_path, capsys):
    assert main([str(made[0]), "--out", str(tmp_path / "few"), "--trust", "made_rows", "--cases", "6"]) == 0
    assert "8 of 32 questions" in capsys.readouterr().out  # two of each of three columns, and the two probes
    held = data(tmp_path / "few")
    assert [case["specialty"] for case in held["cases"]] == ["a", "a", "b", "b", "kept", "kept", "a", "b"]
    assert "8 of 32 questions" in (tmp_path / "few/index.html").read_text()


def test_code_of_a_foreign_folder_is_not_run_and_changed_questions_are_not_shown(made, tmp_path, capsys):
    assert main([str(made[0]), "--out", str(tmp_path / "untrusted"), "--cases", "3"]) == 0
    told = capsys.readouterr().out
    assert "questions of a cannot be read" in told
    assert "trust" in told
    assert not (tmp_path / "untrusted/pictures").exists()
    assert data(tmp_path / "untrusted")["cases"][0]["question"] == ""
    folder = tmp_path / "runs/changed"
    shutil.copytree(made[0], folder)
    rows = [json.loads(line) for line in (folder / "evaluation/predictions.jsonl").read_text().splitlines()]
    for row in rows:
        row["prompt_sha256"] = "0" * 16
    (folder / "evaluation/predictions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert main([str(folder), "--out", str(tmp_path / "changed"), "--trust", "made_rows"]) == 0
    assert "20 questions are not any more as they were asked" in capsys.readouterr().out
    assert {case["question"] for case in data(tmp_path / "changed")["cases"] if case["specialty"] == "a"} >= {""}


def test_only_a_report_is_replaced_and_only_by_a_whole_one(made, tmp_path, capsys):
    place = tmp_path / "mine"
    place.mkdir()
    (place / "thesis.txt").write_text("years")
    assert main([str(made[0]), "--out", str(place)]) == 2
    assert "is no report" in capsys.readouterr().err
    assert (place / "thesis.txt").read_text() == "years"
    assert main([str(tmp_path / "nothing"), "--out", str(tmp_path / "new")]) == 2
    assert "has" in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mine"]


def test_a_damaged_file_is_named(made, tmp_path, capsys):
    folder = tmp_path / "runs/gba"
    shutil.copytree(made[0], folder)
    with open(folder / "a/samples.jsonl", "a") as file:
        file.write('{"step": "x"}\n')
    assert main([str(folder), "--out", str(tmp_path / "out"), "--trust", "made_rows"]) == 2
    assert "a/samples.jsonl:4" in capsys.readouterr().err


def test_curves_are_those_of_the_board(made):
    found = curves_of({"gba": made[0]})
    assert found["validation\naccuracy"]["a"]["gba"] == [(0, 0.25), (10, 0.5), (20, 0.75)]
    assert set(found["validation\naccuracy"]) == {"a", "b"}


def test_seeds_of_one_name_have_curves_of_their_own(tmp_path):
    for seed in ("seed0", "seed1"):
        for name in ("dsa", "gba"):
            (tmp_path / seed / name).mkdir(parents=True)
        settings = {"required": {"dsa": {"name": "dsa"}}}
        (tmp_path / seed / "gba" / "experiment.json").write_text(json.dumps(settings))
    found = homes_of([tmp_path / "seed0/gba", tmp_path / "seed1/gba"])
    assert list(found.values()) == [tmp_path / seed / name for seed in ("seed0", "seed1") for name in ("dsa", "gba")]
    assert list(found) == list(map(str, found.values()))
    assert list(homes_of([tmp_path / "seed0/gba", tmp_path / "seed0/dsa"])) == ["dsa", "gba"]


def test_a_probe_s_question_that_has_changed_since_is_not_shown(tmp_path):
    run = tmp_path / "gba" / "a"
    run.mkdir(parents=True)
    row = {"step": 0, "question_id": "q", "gold": "B", "guideline": "neutral", "completion": "x"}
    (run / "samples.jsonl").write_text(json.dumps(row) + "\n")
    for answer, shown in (("no", "Wide?"), ("yes", "")):
        gallery = Gallery()
        questions = Questions({"a": {"q": Example("p", (), "Wide?", ("yes", "no"), answer, "q")}})
        ((case, _),) = add_probes(gallery, [run], questions)
        assert (case["question"], gallery.changed) == (shown, int(not shown))


def test_an_option_that_one_set_lacks_hides_no_question(tmp_path):
    # as an experiment is recorded whose `data` shares n_patients between phantoms and a lab's table
    rows = ["question,answer", *(f"Wide {number}?,yes" for number in range(30))]
    (tmp_path / "questions.csv").write_text("\n".join(rows) + "\n")
    table = {"root": str(tmp_path), "choices": ["yes", "no"], "columns": {"question": "question", "answer": "answer"}}
    specialties = {"dental": {"class_path": "datamodules.table.Table", "init_args": table}}
    (tmp_path / "experiment.json").write_text(json.dumps({"data": {"n_patients": 40}, "specialties": specialties}))
    found = questions_of(tmp_path, {"questions-1", "questions-2"})
    assert found.notes == []
    assert set(found.known["dental"]) == {"questions-1", "questions-2"}


def test_two_experiments_are_compared_and_what_they_differ_by_is_told(made, tmp_path):
    other = tmp_path / "other"
    shutil.copytree(made[0], other)
    settings = json.loads((other / "experiment.json").read_text())
    (other / "experiment.json").write_text(json.dumps(settings | {"seed": 4, "precision": HOSTILE[1]}))
    file = other / "evaluation/predictions.jsonl"
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    file.write_text(
        "".join(json.dumps(row | {"completion": "<think>x</think><answer>B</answer>"}) + "\n" for row in rows)
    )
    out = tmp_path / "out"
    assert main([str(made[0]), str(other), "--out", str(out), "--cases", "3", "--trust", "made_rows"]) == 0
    page = pages(out)["index.html"]
    assert page.tables["between-table"][1][:3] == ["gba:base", "other:base", "a"]
    assert ["seed", "0 and 4"] in page.tables[None]
    assert ["precision", f"'not stated' and {HOSTILE[1]!r}"] in page.tables[None]
    assert "other: base" in data(out)["models"]


@pytest.mark.slow
def test_the_gallery_filters_sorts_and_steps_and_nothing_acts(report, tmp_path):
    held = data(report)
    with Browser(tmp_path) as tab:
        tab.open((report / "cases.html").as_uri())
        count = "document.getElementById('count').textContent"
        assert tab.js(count) == f"1 of {len(held['cases'])}"
        assert tab.js("document.querySelector('.stem').textContent") == held["cases"][0]["question"]
        tab.key("j")
        tab.key("ArrowRight")
        assert tab.js(count) == f"3 of {len(held['cases'])}"
        tab.key("k")
        assert tab.js("document.querySelector('.stem').textContent") == held["cases"][1]["question"]
        tab.js("""for (const [name, value] of [["a", "base"], ["b", "gba/a"], ["is", "differs from B"]]) {
            const select = document.querySelector(`select[name="${name}"]`);
            select.value = value; select.dispatchEvent(new Event("change")); }""")
        models = held["models"]
        rights = [{models[one["model"]]: one["right"] for one in case["answers"]} for case in held["cases"]]
        differ = sum("base" in right and right["base"] != right["gba/a"] for right in rights)
        assert 0 < differ < len(rights)
        assert tab.js(count) == f"1 of {differ}, filtered from {len(rights)}"
        tab.open((report / "cases.html").as_uri() + "#kind=examination&sort=most+often+wrong")
        worst = min(sum(right.values()) / len(right) for right, case in zip(rights, held["cases"], strict=True)
                    if case["kind"] == "examination")  # fmt: skip
        shown = "document.querySelectorAll('.answer.right').length / document.querySelectorAll('.answer').length"
        assert tab.js(shown) == pytest.approx(worst)
        tab.until("[...document.images].every((image) => image.naturalWidth === 512)")
        tab.open((report / "index.html").as_uri())
        tab.until("[...document.images].every((image) => image.naturalWidth > 0)")
        tab.js("document.querySelector('#matrix1 thead').rows[0].cells[3].click()")
        column = tab.js("[...document.querySelectorAll('#matrix1 tbody tr')].map((row) => row.cells[3].textContent)")
        numbers = [float(cell) for cell in column if cell]
        assert numbers == sorted(numbers, reverse=True)
        assert len(numbers) >= len(RIGHT)
        assert tab.js("window.acted === undefined")
        assert tab.complaints == []
