# Reference: an endpoint that knows the phantoms' own traces, and fails, stalls and lies as it is told to.
# Run: pytest tests/curation/test_curation_run.py
import json
import multiprocessing
import os
import signal
import sys
import threading
from collections import Counter

import pytest
from PIL import Image

from curation.__main__ import main
from datamodules.batch import image_key, load_image
from datamodules.check.__main__ import main as check
from datamodules.mmedexpert import MMedExpert
from datamodules.prompts import question_text
from endpoints.command import UNFINISHED
from tests.conftest import noise_image
from tests.curation.made_curation import (
    GUIDELINES,
    POOLS,
    POPULATION,
    asked_about,
    contents,
    counts_of,
    honest,
    rows_of,
    run,
    write,
)
from tests.endpoints.fake_endpoint import Says, completion, serving


def test_an_honest_teacher_gives_a_whole_set_that_loads_and_passes_the_check(tmp_path, known, capsys):
    with serving(honest(known)) as fake:
        config = write(tmp_path, fake.url)
        assert run(config) == 0
        asked = len(fake.asked)
        assert run(config) == 0  # everything is known: nobody is asked
        assert asked == len(fake.asked) == len(known) * len(GUIDELINES)
    rows, counts = rows_of(tmp_path), counts_of(tmp_path)
    assert len(rows) == counts["gates"]["usable"]["in"] == len(known)
    by_id = {f"{name}/{e.question_id}": e for e in known.values() for name in POOLS if e.question_id.startswith(name)}
    for row in rows:
        example = by_id[row["id"]]
        assert row["reasoning"] == example.reasoning
        assert row["options"][row["answer"]] == example.answer
        assert image_key(load_image(tmp_path / "out" / "data" / row["images"][0])) == image_key(
            load_image(example.images[0])
        )
        made = row["provenance"]
        assert (made["source"], made["source_id"]) == (f"phantoms, {row['id'].split('/')[0]}", example.question_id)
        assert set(made["traces"]) == set(GUIDELINES)
        for trace in made["traces"].values():
            reply = json.loads((tmp_path / f"out.replies/{trace['request'][:2]}/{trace['request']}.json").read_text())
            assert reply["sha256"] == trace["reply_sha256"]
            assert reply["asked"]["row"] == row["id"]
    read = MMedExpert(MMedExpert.Config(root=str(tmp_path / "out" / "data"), on_bad_row="fail"))
    assert sum(map(len, read.splits.values())) == len(rows)
    assert check(["datamodules.mmedexpert.MMedExpert", f"root={tmp_path / 'out' / 'data'}"]) == 0
    assert main(["report", str(tmp_path / "out")]) == 0
    assert "the counts add up" in capsys.readouterr().out


def test_liars_and_failures_are_told_apart_and_nobody_is_called_wrong_for_an_outage(tmp_path, known):
    # every reply is spoilt in one of six ways, by the trace it should have been
    spoilt = Counter()
    lock = threading.Lock()

    places = {key: place for place, key in enumerate(sorted(known, key=str))}
    kinds = ("good", "wrong", "elsewhere", "cut off", "empty", "refused", "../leak")

    def behave(asked, number):
        example, name = asked_about(asked, known)
        place = list(GUIDELINES).index(name) + places[question_text(example), asked.pictures[0]]
        kind = kinds[place % len(kinds)]
        with lock:
            spoilt[name, kind] += 1
        other = next(option for option in example.options if option != example.answer)
        thinking = example.reasoning[name]
        text = {
            "wrong": example.trace(name).replace(f"<answer>{example.letter}", f"<answer>{'AB'[example.letter == 'A']}"),
            "elsewhere": f"<think>{thinking} but the final answer is {other}.</think><answer>{example.letter}</answer>",
            "../leak": f"<think>{thinking}</think><answer>../../{example.letter}</answer>",
            "empty": "",
        }.get(kind, example.trace(name))
        if kind == "refused":
            return Says(b'{"error": "policy"}', status=400)
        return Says(completion(text, finish="length" if kind == "cut off" else "stop"))

    with serving(behave) as fake:
        assert run(write(tmp_path, fake.url, min_traces=1)) == 0
    counts = counts_of(tmp_path)
    for name, entry in counts["traces"].items():
        found = {**entry["rejected"], **entry["unknown"], "good": entry["accepted"]}
        assert found == {
            "good": spoilt[name, "good"],
            "wrong_answer": spoilt[name, "wrong"],
            "contradiction": spoilt[name, "elsewhere"],
            "format:not_an_option": spoilt[name, "../leak"],
            "truncated": spoilt[name, "cut off"],
            "empty": spoilt[name, "empty"],
            "refused": spoilt[name, "refused"],
        }
        assert set(entry["unknown"]) == {"truncated", "empty", "refused"}
    assert len(rows_of(tmp_path)) == counts["gates"]["traces"]["out"] < len(known)
    rejected = [json.loads(line) for line in (tmp_path / "out" / "rejected.jsonl").read_text().splitlines()]
    assert Counter(one["reason"] for one in rejected) == counts["gates"]["traces"]["rejected"]
    assert len(rejected) + len(rows_of(tmp_path)) == len(known)


def test_an_outage_loses_nothing_and_the_same_command_goes_on(tmp_path, known, capsys):
    teach = honest(known)
    with serving(teach) as fake:
        whole = write(tmp_path / "whole", fake.url)
        assert run(whole) == 0
        # the same address for the interrupted run, since it goes into provenance: the server changes its ways
        fake.asked.clear()
        page = Says(b"<html>maintenance</html>")
        fake.behave = lambda asked, n: teach(asked, n) if n <= 30 else (page if n % 2 else Says(status=503))
        parts = write(tmp_path / "parts", fake.url)
        capsys.readouterr()
        assert run(parts) == UNFINISHED
        assert "run the same command again to go on" in capsys.readouterr().err
        assert not (tmp_path / "parts" / "out").exists()
        kept = list((tmp_path / "parts" / "out.replies").rglob("*.json"))
        assert len(kept) == 30
        assert len(fake.asked) < len(known) * len(GUIDELINES)  # it gave up instead of asking for all the rest
        fake.asked.clear()
        fake.behave = teach
        assert run(parts) == 0
        assert len(fake.asked) == len(known) * len(GUIDELINES) - 30
    assert contents(tmp_path / "parts" / "out") == contents(tmp_path / "whole" / "out")


def test_refusals_without_end_are_an_outage(tmp_path, known, capsys):
    # "this parameter is not supported" would be said to every request
    with serving(lambda asked, n: Says(b'{"error": "no seed here"}', status=400)) as fake:
        assert run(write(tmp_path, fake.url)) == UNFINISHED
        assert len(fake.asked) < len(known) * len(GUIDELINES)
    assert "no seed here" in capsys.readouterr().err
    assert not list((tmp_path / "out.replies").rglob("*.json"))


def test_a_teacher_whose_reasoning_comes_apart_teaches_as_well(tmp_path, known):
    def behave(asked, number):
        example, name = asked_about(asked, known)
        trace = example.trace(name)
        thinking = trace.partition("<think>")[2].partition("</think>")[0]
        message = {"role": "assistant", "content": trace.partition("</think>")[2], "reasoning_content": thinking}
        choice = {"index": 0, "message": message, "finish_reason": "stop"}
        return Says(json.dumps({"model": "fake-1", "choices": [choice]}).encode())

    with serving(behave) as fake:
        assert run(write(tmp_path, fake.url)) == 0
    assert len(rows_of(tmp_path)) == len(known)
    assert all(set(row["reasoning"]) == set(GUIDELINES) for row in rows_of(tmp_path))


def test_another_model_is_called_that_after_one_request(tmp_path, known, capsys):
    def behave(asked, number):
        return Says(completion(honest(known)(asked, number).body.decode(), model="fake-2-mini"))

    with serving(behave) as fake:
        assert run(write(tmp_path, fake.url)) == 1
        assert len(fake.asked) == 2  # once, and its one further attempt
        said = capsys.readouterr().err
        assert "answers as model 'fake-2-mini', asked was 'fake-1'" in said
        assert "served_as: ['fake-2-mini']" in said
        fake.behave = lambda asked, n: Says(honest(known)(asked, n).body.replace(b'"fake-1"', b'"fake-2-mini"'))
        config = write(tmp_path, fake.url)
        assert run(config, "teacher.init_args.served_as=[fake-2-mini]") == 0


@pytest.mark.parametrize(
    ("bad", "code"),
    [(Says(status=401), 1), (Says(status=404), 1), (Says(status=503), UNFINISHED), (Says(reset=True), UNFINISHED)],
    ids=["key", "address", "503", "reset"],
)
def test_one_request_is_tried_before_the_many(tmp_path, known, bad, code):
    with serving(lambda asked, n: bad) as fake:
        assert run(write(tmp_path, fake.url)) == code
    assert len({asked.text for asked in fake.asked}) == 1
    assert not list((tmp_path / "out.replies").rglob("*.json"))


def test_a_run_that_keeps_nothing_fails_and_says_why(tmp_path, known, capsys):
    with serving(lambda asked, n: Says(completion("I would rather not."))) as fake:
        config = write(tmp_path, fake.url)
        assert run(config) == 1
        asked = len(fake.asked)
        assert run(config) == 1  # nobody is asked again
        assert asked == len(fake.asked) == len(known) * len(GUIDELINES)
    told = capsys.readouterr()
    assert "no question passed every gate" in told.err
    assert f"too_few_traces {len(known)}" in told.out
    assert "traces of bayesian: 0 of" in told.out
    assert "format:" in told.out
    assert not (tmp_path / "out").exists()


def test_what_came_to_lie_there_meanwhile_is_not_replaced(tmp_path, known, capsys):
    teach = honest(known)

    def behave(asked, number):
        (tmp_path / "out").mkdir(exist_ok=True)
        (tmp_path / "out" / "thesis.tex").write_text("years of work")
        return teach(asked, number)

    with serving(behave) as fake:
        assert run(write(tmp_path, fake.url, limit=1)) == 2
    assert (tmp_path / "out" / "thesis.tex").read_text() == "years of work"
    assert "holds something else" in capsys.readouterr().err


def command(config):
    """The command in a process of its own; forked, since its imports take longer than its work."""

    def stoppable():
        signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job ignores Ctrl-C
        sys.exit(run(config))

    process = multiprocessing.get_context("fork").Process(target=stoppable)
    process.start()
    return process


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_a_run_that_is_stopped_goes_on_with_the_same_bytes(tmp_path, known, number):
    teach, enough = honest(known), threading.Event()

    def slow(asked, n):
        if n >= 30:
            enough.set()
        return Says(teach(asked, n).body, stall=0.05)

    with serving(slow) as fake:
        config = write(tmp_path / "parts", fake.url)
        process = command(config)
        assert enough.wait(60)
        os.kill(process.pid, number)
        process.join(60)
        assert process.exitcode == (130 if number == signal.SIGINT else -number)
        kept = len(list((tmp_path / "parts" / "out.replies").rglob("*.json")))
        first = len(fake.asked)
        # Ctrl-C keeps what was under way as well; a kill may lose what came and was not yet written
        assert kept == first if number == signal.SIGINT else first - 8 <= kept <= first
        assert kept < len(known) * len(GUIDELINES)
        fake.asked.clear()
        fake.behave = teach
        assert run(config) == 0
        assert len(fake.asked) == len(known) * len(GUIDELINES) - kept
        assert run(write(tmp_path / "whole", fake.url)) == 0
    assert contents(tmp_path / "parts" / "out") == contents(tmp_path / "whole" / "out")


def test_the_base_decides_which_questions_are_worth_it(tmp_path, known):
    # questions in a fixed order: the base is right in 0, 1, 2, 3 of 4 draws, never delivers, and delivers 1 of 4
    order = {key: i % 6 for i, key in enumerate(sorted(known, key=str))}
    draws = Counter()
    lock = threading.Lock()

    def behave(asked, number):
        example, name = asked_about(asked, known)
        if name:
            return Says(completion(example.trace(name)))
        key = question_text(example), asked.pictures[0]
        with lock:
            draws[key] += 1
            right = draws[key] <= order[key]
        if order[key] == 4 or (order[key] == 5 and draws[key] > 1):
            return Says(completion("cut off", finish="length"))
        wrong = example.options[(example.options.index(example.answer) + 1) % len(example.options)]
        return Says(completion(f"<think>I see it now.</think><answer>{example.answer if right else wrong}</answer>"))

    with serving(behave) as fake:
        base = {"class_path": "curation.endpoint.Endpoint", "init_args": {"base_url": fake.url, "model": "fake-1"}}
        config = write(tmp_path, fake.url, base=base, samples=4, pass_rate=[0.25, 0.5])
        assert run(config) == 0
    size = Counter(order.values())
    entry = counts_of(tmp_path)["gates"]["pass_rate"]
    assert entry["rejected"] == {"too_hard": size[0], "too_easy": size[3], "base_unknown": size[4] + size[5]}
    assert entry["out"] == size[1] + size[2]
    rates = Counter(row["provenance"]["pass_rate"]["right"] for row in rows_of(tmp_path))
    assert rates == {1: size[1], 2: size[2]}


def test_further_draws_are_asked_only_where_a_trace_is_missing(tmp_path, known):
    seen = Counter()
    lock = threading.Lock()

    def behave(asked, number):
        example, name = asked_about(asked, known)
        with lock:
            seen[asked.text, asked.pictures] += 1
            first = seen[asked.text, asked.pictures] == 1
        return Says(completion("no tags" if first and name == "bayesian" else example.trace(name)))

    with serving(behave) as fake:
        assert run(write(tmp_path, fake.url, draws=3, min_traces=4)) == 0
        assert len(fake.asked) == len(known) * (len(GUIDELINES) + 1)
    assert len(rows_of(tmp_path)) == len(known)
    assert {row["provenance"]["traces"]["bayesian"]["draw"] for row in rows_of(tmp_path)} == {1}


def test_what_is_examined_is_kept_out_and_the_classifier_audits(tmp_path, known):
    # the examination is the chest pool's own population: every chest question overlaps by its picture
    teach = honest(known)
    test_set = {
        "class_path": "datamodules.phantoms.chest.ChestFilms",
        "init_args": POPULATION | {"test_fraction": 0.7},
    }

    def behave(asked, number):
        if asked.text.startswith("To which specialty"):
            return Says(completion("The answer is D."))  # adult medicine, whatever is asked
        return teach(asked, number)

    with serving(behave) as fake:
        options = {"base_url": fake.url, "model": "fake-1", "system": ""}
        classifier = {"class_path": "curation.endpoint.Endpoint", "init_args": options}
        config = write(tmp_path, fake.url, test_sets={"films": test_set}, classifier=classifier, audit_rows=3)
        assert run(config) == 0
        asked = sum(text.startswith("To which specialty") for text in fake.texts())
    counts = counts_of(tmp_path)
    chest = sum(e.question_id.startswith("chest") for e in known.values())
    overlap = counts["gates"]["overlap"]
    assert set(overlap["rejected"]) == {"overlap_image"}
    assert overlap["by_specialty"]["oncology_surgery"]["rejected"] == {}
    assert chest // 2 < overlap["rejected"]["overlap_image"] <= chest
    agreement = counts["agreement"]
    assert agreement["n"] == asked <= 6
    assert ["oncology_surgery", "adult_medicine", 3] in agreement["table"]
    assert abs(agreement["kappa"]) < 1e-12  # a classifier that always says the same agrees by chance only
    assert len((tmp_path / "out" / "audit.csv").read_text().splitlines()) == 1 + asked


def test_a_dry_run_counts_and_asks_nobody(tmp_path, known, capsys):
    with serving(honest(known)) as fake:
        config = write(tmp_path, fake.url)
        assert main(["run", "--config", config, "--dry-run"]) == 0
        n = len(known) * len(GUIDELINES)
        assert f"traces       at most {n} requests, 0 of them known" in capsys.readouterr().out
        assert not fake.asked
        assert run(config) == 0
        assert main(["run", "--config", config, "--dry-run"]) == 0
        assert f"at most {n} requests, {n} of them known; at most 0 tokens" in capsys.readouterr().out


def test_nothing_that_is_not_ours_is_replaced(tmp_path, known, capsys):
    with serving(honest(known)) as fake:
        config = write(tmp_path, fake.url, limit=2)
        (tmp_path / "out").mkdir()
        (tmp_path / "out" / "thesis.tex").write_text("years of work")
        assert run(config) == 2
        assert "holds something else" in capsys.readouterr().err
        assert (tmp_path / "out" / "thesis.tex").read_text() == "years of work"
        (tmp_path / "out" / "thesis.tex").unlink()
        assert run(config) == 0
        assert run(config, "min_traces=2") == 2
        assert "min_traces" in capsys.readouterr().err
        assert run(config, "min_traces=2", "overwrite=true") == 0


def test_a_set_that_was_changed_is_reported(tmp_path, known, capsys):
    with serving(honest(known)) as fake:
        assert run(write(tmp_path, fake.url, limit=4)) == 0
    file = sorted((tmp_path / "out" / "data").glob("*.jsonl"))[0]
    lines = file.read_text().splitlines(keepends=True)
    file.write_text("".join(lines[1:]))
    assert main(["report", str(tmp_path / "out")]) == 1
    assert "went out of the last gate" in capsys.readouterr().err
    file.write_text("".join([lines[0].replace('"A"', '"Z"', 1), *lines[1:]]))
    assert main(["report", str(tmp_path / "out")]) == 1
    assert main(["report", str(tmp_path / "nowhere")]) == 1


def test_every_problem_of_a_configuration_is_told_at_once(tmp_path, capsys):
    config = write(tmp_path, "http://127.0.0.1:9/v1")
    wrong = ["teacher.init_args.concurrency=0", "pools.chest.data.init_args.n_patents=3", "limt=3", "min_traces=9"]
    assert run(config, *wrong) == 2
    said = capsys.readouterr().err
    for name in (
        "concurrency must lie in [1, 64]",
        "n_patents",
        "did you mean 'limit'",
        "min_traces must lie in 1 to 4",
    ):
        assert name in said


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ("teacher={class_path: json.JSONDecoder}", "teacher.class_path"),
        ("pools.chest.data={class_path: json.JSONDecoder}", "pools.chest.data.class_path"),
        ("test_sets={one: {class_path: json.JSONDecoder}}", "test_sets.one.class_path"),
        ("guidelines=[guesswork]", "unknown name 'guesswork'"),
        ("rules=curation/phantoms.yaml", "tag_points and specialties"),
        ("replies={out}/replies", "replies must not lie in out"),
    ],
)
def test_a_wrong_setting_is_told_by_its_name(tmp_path, capsys, wrong, named):
    assert run(write(tmp_path, "http://127.0.0.1:9/v1"), wrong.replace("{out}", str(tmp_path / "out"))) == 2
    assert named in capsys.readouterr().err


def test_sets_for_examination_are_refused_as_pools(tmp_path, capsys):
    (tmp_path / "MM").mkdir()
    data = {"class_path": "datamodules.medxpertqa.MedXpertQA", "init_args": {"root": str(tmp_path)}}
    pools = {"mm": {"data": data, "source": "MedXpertQA", "licence": "MIT"}}
    assert run(write(tmp_path, "http://127.0.0.1:9/v1", pools=pools)) == 1
    assert "never a training set" in capsys.readouterr().err


def test_bad_rows_of_a_pool_are_counted_and_a_formula_stays_text(tmp_path, known):
    rows = []
    for i in range(12):
        rows.append({
            "id": f"../../{i}", "specialty": "pediatrics", "patient_id": f"p{i}", "images": [],
            "question": f"=cmd|' /C calc'!A{i} Which finding has child {i}?", "options": ["wide", "narrow"],
            "answer": "A", "reasoning": {}, "split": "train",
            "provenance": {"source": "made", "source_id": str(i), "licence": "made"},
        })  # fmt: skip
    rows[3]["answer"] = "C"
    rows[4]["images"], rows[6]["images"] = ["missing.png"], ["scan.png"]
    rows[5]["options"], rows[5]["answer"] = {}, "wide"
    (tmp_path / "pool").mkdir()
    noise_image(7, 40, 40).save(tmp_path / "pool" / "scan.png", icc_profile=b"taken by Dr. Made")
    (tmp_path / "pool" / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows) + "{broken\n")
    data = {"class_path": "datamodules.mmedexpert.MMedExpert", "init_args": {"root": str(tmp_path / "pool")}}
    data["init_args"] |= {"val_fraction": 0.0, "on_bad_row": "skip"}
    pools = {"made": {"data": data, "source": "made", "licence": "made"}}
    trace = "<think>The edge is broad on both sides. So the answer is wide.</think><answer>{}</answer>"

    def behave(asked, number):
        return Says(completion(trace.format("A" if "A) wide" in asked.text else "B")))

    with serving(behave) as fake:
        assert run(write(tmp_path, fake.url, pools=pools, min_adherence=0.0)) == 0
    usable = counts_of(tmp_path)["gates"]["usable"]
    assert usable["in"] == 13
    assert usable["rejected"] == {"bad_row": 2, "open_question": 1, "picture_missing": 1}
    kept = {row["id"] for row in rows_of(tmp_path)}
    assert kept == {f"made/../../{i}" for i in range(12) if i not in (3, 4, 5)}
    files = {path.relative_to(tmp_path).parts[0] for path in tmp_path.rglob("*") if path.is_file()}
    assert files == {"pool", "out", "out.replies", "curation.yaml"}
    assert ",'=cmd" in (tmp_path / "out" / "audit.csv").read_text()
    (picture,) = (tmp_path / "out" / "data" / "images").iterdir()
    assert Image.open(picture).info == {}
    assert not [name for name, held in contents(tmp_path / "out").items() if str(tmp_path).encode() in held]


@pytest.mark.parametrize("name", ["picture", "row"])
def test_a_test_set_that_cannot_be_compared_is_no_test_set(tmp_path, capsys, name):
    (tmp_path / "set").mkdir()
    row = {
        "id": "1", "specialty": "pediatrics", "patient_id": "p", "images": ["missing.png"], "question": "Which?",
        "options": ["a", "b"], "answer": "A", "split": "test",
        "provenance": {"source": "made", "source_id": "1", "licence": "made"},
    }  # fmt: skip
    lines = json.dumps(row) + "\n" if name == "picture" else json.dumps(row | {"images": []}) + "\n{broken\n"
    (tmp_path / "set" / "test.jsonl").write_text(lines)
    held = {"class_path": "datamodules.mmedexpert.MMedExpert", "init_args": {"root": str(tmp_path / "set")}}
    assert run(write(tmp_path, "http://127.0.0.1:9/v1", test_sets={"made": held})) == 1
    assert "test_sets.made: 1 rows cannot be compared" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["phantoms", "endpoint"])
def test_the_files_in_configs_load(name):
    from curation.settings import load_settings, resolved

    settings = load_settings(f"curation/{name}.yaml")
    assert resolved(settings)["teacher"]["class_path"] == settings.teacher.class_path
    assert settings.rule_file.is_file()
