# Reference: the experts' own cells of the same matrix. Run: pytest tests/experiment/test_routed_rows.py
import csv
import json
from pathlib import Path

import yaml

from callbacks import routers
from evaluation.predictions import read_predictions
from evaluation.rescore import main as rescore
from experiment.context import ExperimentContext


def with_routers(machine, files, **options):
    """The lineage, whose matrix has rows of routers."""
    callbacks = yaml.safe_load((machine.files / "gba.yaml").read_text())["callbacks"]
    callbacks["evaluate"]["init_args"] |= {"routers": ["oracle", "learned"], "image": ["shown", "blank"]} | options
    return machine.write(files, "gba", callbacks=callbacks)


def test_routers_have_rows_that_ask_the_experts_nothing(lineage, tmp_path, monkeypatch, capsys):
    made = with_routers(lineage.copy(tmp_path / "runs"), tmp_path / "files")
    assert made.run("gba") == 0
    folder = made.runs / "gba/evaluation"
    rows = {row["model"]: row for row in csv.DictReader((folder / "matrix.csv").open())}
    for name in ("dsa", "gba"):
        for specialty in ("alpha", "beta"):
            assert rows[f"{name}/router/oracle"][f"{specialty}/n"] == "4"
            cell = f"{specialty}/accuracy"
            assert rows[f"{name}/router/oracle"][cell] == rows[f"{name}/{specialty}"][cell]
    sent = json.loads((folder / "router.json").read_text())["sent_to"]
    assert set(sent) == {"alpha", "beta", "alpha image=blank", "beta image=blank"}
    predictions = read_predictions(folder)
    given = {(p.model, p.question_id, p.protocol.get("image")): p for p in predictions}
    learned = [p for p in predictions if p.model == "gba/router/learned"]
    assert len(learned) == 16  # 4 questions x 2 specialties x 2 ways
    for item in learned:
        image = item.protocol.get("image")
        chosen = sent[item.specialty + (f" image={image}" if image else "")][item.question_id]
        assert item.completion == given[f"gba/{chosen}", item.question_id, image].completion
        assert item.tags["sent_to"] == chosen
    assert "## Sent by routers" in (folder / "report.md").read_text()
    assert rescore([str(folder), "--check"]) == 0

    before = (folder / "matrix.csv").read_bytes()

    def policy(self):
        raise AssertionError("a model was loaded for what is there")

    with monkeypatch.context() as patched:
        patched.setattr(ExperimentContext, "policy", policy)
        assert made.run("gba") == 0
    assert (folder / "matrix.csv").read_bytes() == before

    def killed(path: Path, text: str):
        raise KeyboardInterrupt

    text = (folder / "router.json").read_text()
    made = with_routers(made, tmp_path / "other", router_rows=2)  # fitted on fewer questions: another router
    with monkeypatch.context() as patched:
        patched.setattr(routers, "put_text", killed)
        assert made.run("gba") == 130
    assert (folder / "router.json").read_text() == text
    assert made.run("gba") == 0
    again = json.loads((folder / "router.json").read_text())
    assert again["made_from"]["rows"] == {"alpha": 2, "beta": 2}
    capsys.readouterr()
