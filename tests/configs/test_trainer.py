"""Reference: the signature of Lightning's Trainer. Run: pytest tests/configs/test_trainer.py."""

import inspect

import pytest
from lightning import Trainer

from configs.load import load
from configs.problems import ConfigError
from configs.trainer import REFUSED, TAKEN

TEXT = """\
trust: [labpkg]
model: {class_path: labpkg.parts.Model}
module: {class_path: labpkg.parts.Module}
specialties: {pediatrics: {class_path: labpkg.parts.Data, init_args: {root: films}}}
trainer: {max_steps: 3}
"""


@pytest.fixture
def fault(working_folder):
    """The one line that an override of `exp.yaml` is refused with."""
    (working_folder / "exp.yaml").write_text(TEXT)

    def found(*overrides):
        with pytest.raises(ConfigError) as error:
            load("exp.yaml", overrides)
        (line,) = str(error.value).splitlines()
        return line

    return found


def test_every_argument_of_the_trainer_is_either_taken_or_refused():
    # A version of Lightning with a further argument has to be looked at: can the stages honour it?
    arguments = set(inspect.signature(Trainer.__init__).parameters) - {"self", "args", "kwargs"}
    assert set(TAKEN) | set(REFUSED) == arguments
    assert set(TAKEN) & set(REFUSED) == set()


@pytest.mark.parametrize("name", REFUSED)
def test_what_a_stage_cannot_honour_is_refused_by_name_with_what_to_write(fault, name):
    # Also at its default: what is written is meant.
    line = fault(f"trainer.{name}={1}")
    reason, instead = REFUSED[name]
    assert line.startswith(f"command line: trainer.{name}: refused: {reason}; ")
    assert line.endswith("leave it out" if instead == "nothing" else f"write instead: {instead}")


@pytest.mark.parametrize("value", ["0", "-1", "4.7", "'3'", "true", "null", "3.0"])
def test_steps_are_a_whole_number_of_at_least_one(fault, value):
    line = fault(f"trainer.max_steps={value}")
    range_, type_ = "max_steps must be at least 1, got", "expected a whole number, got"
    assert f"trainer.max_steps: {range_ if value in ('0', '-1') else type_}" in line


def test_an_experiment_that_trains_says_how_long(working_folder, fault):
    (working_folder / "exp.yaml").write_text(TEXT.replace("trainer: {max_steps: 3}", ""))
    assert "trainer.max_steps: missing" in fault()


@pytest.mark.parametrize("value", ["bf16-true", "16-true", "64-true", "bf16", "16", "64", "transformer-engine"])
def test_a_precision_that_rounds_what_is_trained_is_refused(fault, value):
    line = fault(f"trainer.precision={value}")
    assert f"trainer.precision: refused: {value} would round adapters and optimiser too" in line
    assert "write instead: precision=bf16 of the experiment" in line
    assert "bf16-mixed" in line.partition("allowed are")[2]


def test_a_precision_that_scales_the_loss_is_refused(fault):
    assert "refused: 16-mixed scales the loss" in fault("trainer.precision=16-mixed")
    assert "expected a precision of Lightning's Trainer, got 'half'" in fault("trainer.precision=half")


@pytest.mark.parametrize("value", ["32-true", "32", "bf16-mixed", "'32'"])
def test_a_precision_that_keeps_adapters_whole_is_taken(working_folder, fault, value):
    assert "precision" in load("exp.yaml", [f"trainer.precision={value}"]).experiment.trainer


def test_the_precision_of_the_base_is_one_of_two(working_folder, fault):
    assert load("exp.yaml").experiment.precision == "float32"
    assert load("exp.yaml", ["precision=bf16"]).experiment.precision == "bf16"
    assert "precision: expected one of 'float32', 'bf16', got 'bf17'; did you mean 'bf16'?" in fault("precision=bf17")


def test_an_argument_that_no_trainer_has_is_unknown(fault):
    assert "trainer.max_stepz: unknown key; did you mean 'max_steps'?" in fault("trainer.max_stepz=3")
