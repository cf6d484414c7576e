"""Reference: the same curation in one process, without a launcher.

SLURM is stood in for by tests/experiment/made_cluster.py.

Run: pytest tests/curation/test_curation_shares.py [-m slow].
"""

import json
import random

import pytest

from curation.__main__ import main
from endpoints.budget import Budget
from endpoints.command import UNFINISHED
from tests.curation.made_curation import asked_about, contents, counts_of, honest, rows_of, run, write
from tests.endpoints.fake_endpoint import Says, completion, serving
from tests.experiment.made_cluster import installed

SLURM = ("launcher=slurm", "launcher.init_args.cpus=1")


@pytest.fixture
def cluster(tmp_path, monkeypatch):
    return installed(tmp_path / "cluster", monkeypatch)


def moody(known):
    """A teacher, base and classifier whose replies are sound, wrong or cut off, each by what was asked."""

    def behave(asked, number):
        # Not by the seed of the request, which follows from the server's address, and that is another each time.
        drawn = random.Random(f"{asked.text} {asked.pictures} {asked.content['temperature']}")
        if "To which specialty" in asked.text:
            return Says(completion(f"<think>it is.</think><answer>{drawn.choice('ABCD')}</answer>"))
        example, name = asked_about(asked, known)
        text = example.trace(name or "intuitive")
        if drawn.random() < 0.5:
            text = text.replace(f"<answer>{example.letter}", f"<answer>{'AB'[example.letter == 'A']}")
        return Says(completion(text, finish="length" if drawn.random() < 0.1 else "stop"))

    return behave


def with_all(folder, url, **changes):
    """A curation that asks a classifier, a base and a teacher about some questions."""
    config = write(folder, url)
    options = {"base_url": url, "retries": 0, "backoff_s": 0.01, "timeout_s": 30.0}
    models = {
        name: {"class_path": "curation.endpoint.Endpoint", "init_args": {**options, "model": "fake-1", "system": name}}
        for name in ("teacher", "base", "classifier")
    }
    more = {"samples": 2, "pass_rate": [0.5, 1.0], "draws": 2, "min_traces": 3, "audit_rows": 3, "limit": 6}
    assert write(folder, url, **models, **more, **changes) == config
    return config


@pytest.mark.parametrize("decide", ["rules", "classifier"])
def test_shares_ask_what_the_whole_asks_and_nothing_is_left_to_ask(tmp_path, known, decide):
    with serving(moody(known)) as fake:
        assert run(with_all(tmp_path / "whole", fake.url, decide=decide)) == 0
        asked = len(fake.asked)
        counts = counts_of(tmp_path / "whole")
        assert all(counts["gates"][gate]["rejected"] for gate in ("pass_rate", "traces"))
        parts = with_all(tmp_path / "parts", fake.url, decide=decide)
        fake.behave, before = moody(known), len(fake.asked)
        for share in ("2/3", "3/3", "1/3"):
            assert run(parts, "--part", share) == 0
            assert not (tmp_path / "parts" / "out").exists()
        assert len(fake.asked) - before == asked
        assert run(parts, "--part", "finish") == 0
        assert len(fake.asked) - before == asked
    assert contents(tmp_path / "parts" / "out") == contents(tmp_path / "whole" / "out")


def test_shares_together_spend_no_more_than_the_whole_may(tmp_path, known):
    with serving(honest(known)) as fake:
        config = write(tmp_path, fake.url)
        for number in (1, 2, 3):
            assert run(config, "--part", f"{number}/3", "teacher.init_args.max_requests=10") == UNFINISHED
        assert len(fake.asked) == 10
        assert run(config, "--part", "finish") == UNFINISHED  # all that may be spent was the shares'
        assert len(fake.asked) == 10
        # 10 = 4 + 3 + 3; tokens alike
    budgets = [Budget(10, 2) for _ in range(3)]
    for index, budget in enumerate(budgets):
        budget.keep_to(index, 3)
    assert [(one.requests, one.tokens) for one in budgets] == [(4, 1), (3, 1), (3, 0)]


def test_a_dry_run_shows_the_jobs_and_starts_none(tmp_path, cluster, capsys):
    config = write(tmp_path / "files", "http://localhost:1/v1", launcher="slurm")
    out = f"out={tmp_path / 'a set; $(touch x)'}"
    assert run(config, out, "launcher.init_args.curation_shards=3", "--dry-run") == 0
    told = capsys.readouterr().out
    names = [line.split(": ")[1] for line in told.splitlines() if line.startswith("job ")]
    assert names == ["a_set____touch_x_-ask", "a_set____touch_x_-finish"]
    assert "#SBATCH --array=0-2" in told
    assert "--dependency=afterok:JOB1" in told
    assert "launcher=null --part 3/3" in told
    assert "launcher=null --part finish" in told
    assert "--gres" not in told  # an endpoint needs no card here
    local = ("teacher={class_path: curation.local.LocalModel, init_args: {config: tiny_base.yaml}}",)
    assert run(config, *local, "--dry-run") == 0
    told = capsys.readouterr().out
    assert [line.split(": ")[1] for line in told.splitlines() if line.startswith("job ")] == ["out-finish"]
    assert "--part" not in told  # without shares the one job asks
    assert "#SBATCH --gres=gpu:1" in told
    assert not (cluster.HERE / "calls.jsonl").exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cluster", "files"]


@pytest.mark.parametrize("words", [("--part", "0/3"), ("--part", "merge"), ("--part", "1/2", "--dry-run")])
def test_a_part_that_is_none_is_refused(tmp_path, words, capsys):
    with pytest.raises(SystemExit) as ended:
        run(write(tmp_path, "http://localhost:1/v1"), *words)
    assert ended.value.code == 2
    assert "--part" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["audit", "--config", "curation/endpoint.yaml", "--part", "1/2"])


@pytest.mark.slow
def test_jobs_of_a_cluster_make_the_same_set_though_one_is_preempted(tmp_path, known, cluster):
    teach, preempted = honest(known), tmp_path / "preempted"

    def slow(asked, number):
        if number == 20:
            preempted.touch()
        if number == 80:
            preempted.unlink()  # the last job is not preempted
        return Says(teach(asked, number).body, stall=0.1)

    with serving(teach) as fake:
        assert run(write(tmp_path / "whole", fake.url)) == 0
        asked = len(fake.asked)
        fake.behave = slow
        parts = write(tmp_path / "parts", fake.url)
        fake.asked.clear()
        assert run(parts, *SLURM, "launcher.init_args.curation_shards=2") == 0
        jobs = tmp_path / "parts" / "out.replies" / "jobs"
        assert [one["tasks"] for one in json.loads((jobs / "submitted.json").read_text())] == [
            ["share1of2", "share2of2"],
            ["finish"],
        ]
        assert run(parts, *SLURM) == 1  # still in the queue
        codes = cluster.run(preempt_at=preempted)
        logs = "\n".join(file.read_text()[-2000:] for file in jobs.glob("*.out"))
        assert list(codes.values()) == [[0, 0], [0]], logs
        assert "queued again to go on" in logs
        assert len(fake.asked) == asked
    assert contents(tmp_path / "parts" / "out") == contents(tmp_path / "whole" / "out")
    assert rows_of(tmp_path / "parts")
