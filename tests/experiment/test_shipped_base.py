# Reference: the shipped embedded base. Trains it anew by the commands of its card, a quarter of an hour of one core:
# pytest tests/experiment/test_shipped_base.py -m slow
import hashlib
import re
from pathlib import Path

import pytest

from evaluation.predictions import read_predictions
from evaluation.scorers import main_outcome
from experiment.export import main as export
from train import main as train

SHIPPED = Path(__file__).parents[2] / "configs/model/tiny_base"


def answers(runs, name, model):
    """Whether each of the base's own questions is answered right, drawn with another seed than it was trained on."""
    settings = ["data=base_skills", f"name={name}", f"model={model}", f"runs_dir={runs}", "workers=1"]
    assert train(["--config", "evaluate.yaml", *settings, "callbacks.evaluate.init_args.n=0"]) == 0
    found = read_predictions(runs / name / "evaluation")
    return {item.question_id: main_outcome(item).right for item in found}


@pytest.mark.slow
def test_the_commands_of_the_card_make_a_base_as_good_as_the_shipped_one(tmp_path):
    card = (SHIPPED / "README.md").read_text()
    trained, exported = re.findall(r"^python (.+)$", card, flags=re.MULTILINE)
    assert trained == "train.py --config tiny_base.yaml"
    assert exported == "-m experiment.export runs/tiny_base/mixed --out configs/model/tiny_base --dtype bfloat16"
    assert hashlib.sha256((SHIPPED / "model.safetensors").read_bytes()).hexdigest() in card
    assert train(["--config", "tiny_base.yaml", f"runs_dir={tmp_path}"]) == 0
    assert export([str(tmp_path / "tiny_base/mixed"), "--out", str(tmp_path / "made"), "--dtype", "bfloat16"]) == 0
    made, shipped = answers(tmp_path, "made_anew", tmp_path / "made"), answers(tmp_path, "as_shipped", SHIPPED)
    assert made.keys() == shipped.keys()
    assert len(made) > 700
    accuracy = [sum(found.values()) / len(found) for found in (made, shipped)]
    # the last bits of a training depend on the processor, so that neither weights nor answers need be equal
    assert accuracy[0] == pytest.approx(accuracy[1], abs=0.05), accuracy
