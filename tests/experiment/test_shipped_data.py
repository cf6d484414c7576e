# Every shipped experiment whose data are made on the spot may start: its sets are whole, and examine nothing that is
# trained on. Run: pytest tests/experiment/test_shipped_data.py -m slow
from pathlib import Path

import pytest

from configs.load import load
from datamodules.check import quick_counts
from experiment.run import asked_besides, assemble, own_sets

CONFIGS = Path(__file__).parents[2] / "configs"
ELSEWHERE = {  # on files that are not part of the repository, or on what another command makes
    "add_specialty",
    "integrate_real",
    "joint_sft_real",
    "judge_7b",
    "real_base",
    "rl_gba_3b",
    "rl_gba_7b",
    "rl_gba_real",
    "sft_dsa_3b",
    "sft_dsa_7b",
    "sft_dsa_real",
    "verifier_tiny",
}


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted({path.stem for path in CONFIGS.glob("*.yaml")} - ELSEWHERE))
def test_the_data_of_a_shipped_experiment_may_be_used(name, tmp_path):
    context = assemble(load(f"{name}.yaml", [f"runs_dir={tmp_path}"]))
    training = context.provides != "nothing"
    counts = quick_counts(own_sets(context, context.specialties), training=training, examined=asked_besides(context))
    assert all(found["train"]["examples"] > 0 for found in counts.values())
