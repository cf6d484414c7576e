# Reference: steps and batches counted by hand. Run: pytest tests/callbacks/test_progress.py
import lightning as L
from lightning.pytorch.demos.boring_classes import BoringModel

from callbacks.progress import PlainProgress


def fit(seconds):
    progress = PlainProgress("run", seconds)
    kept_off = {"logger": False, "enable_checkpointing": False, "enable_model_summary": False}
    L.Trainer(
        accelerator="cpu",
        max_steps=4,
        limit_val_batches=3,
        val_check_interval=2,
        num_sanity_val_steps=0,
        callbacks=[progress],
        **kept_off,
    ).fit(BoringModel())


def test_steps_and_validations_count_down(capsys):
    fit(0.0)
    told = [line.rsplit("  ", 1)[0].rstrip() for line in capsys.readouterr().out.splitlines() if line.startswith("run")]
    validation = [f"run  validation  {done}/3 batches" for done in (1, 2, 3)]
    steps = [f"run  step {step}/4" for step in (1, 2, 3, 4)]
    assert told == [*steps[:2], *validation, *steps[2:], *validation]


def test_a_short_run_tells_its_ends_alone(capsys):
    fit(3600.0)
    told = [line for line in capsys.readouterr().out.splitlines() if line.startswith("run")]
    assert [line.split("  ")[1] for line in told] == ["step 1/4", "step 4/4"]
