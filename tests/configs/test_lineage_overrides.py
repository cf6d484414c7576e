"""Reference: by hand, three small files that require each other.

Run: pytest tests/configs/test_lineage_overrides.py.
"""

import pytest
import yaml

from configs.load import load
from configs.problems import ConfigError
from configs.show import format_resolved

TEXT = """\
trust: [labpkg]
model: {class_path: labpkg.parts.Model}
module: {class_path: labpkg.parts.Module}
specialties: {pediatrics: {class_path: labpkg.parts.Data, init_args: {root: films}}}
trainer: {max_steps: 3}
"""


@pytest.fixture
def lineage(working_folder):
    """Experiments `ground` (which states its seed), `middle` (file mid.yaml), `top`; each requires the one before."""
    (working_folder / "ground.yaml").write_text(TEXT + "seed: 5\n")
    (working_folder / "mid.yaml").write_text(TEXT + "name: middle\nrequires: [ground]\n")
    (working_folder / "top.yaml").write_text(TEXT + "requires: [mid]\n")
    return working_folder


def steps(loaded) -> dict[str, int]:
    members = [*loaded.beneath.values(), loaded]
    return {one.called: one.experiment.trainer["max_steps"] for one in members}


def test_a_setting_reaches_the_experiment_that_it_names_and_no_other(lineage):
    assert steps(load("top.yaml", ["middle:trainer.max_steps=60"])) == {"ground": 3, "middle": 60, "top": 3}
    assert steps(load("top.yaml", ["ground:trainer.max_steps=7", "trainer.max_steps=9"])) == {
        "ground": 7,
        "middle": 3,
        "top": 9,
    }
    assert steps(load("top.yaml", ["top:trainer.max_steps=8"]))["top"] == 8


def test_it_goes_over_what_is_handed_on_and_what_the_file_states(lineage):
    loaded = load("top.yaml", ["seed=1", "budget=0.5", "ground:seed=2", "middle:budget=0.25"])
    found = {one.called: (one.experiment.seed, one.experiment.budget) for one in [*loaded.beneath.values(), loaded]}
    assert found == {"ground": (2, 0.5), "middle": (1, 0.25), "top": (1, 0.5)}
    assert load("top.yaml", ["seed=1"]).beneath["ground"].experiment.seed == 5


def test_a_name_that_is_given_anew_does_not_change_how_it_is_addressed(lineage):
    middle = load("top.yaml", ["middle:name=other", "middle:seed=4"]).beneath["middle"]
    assert (middle.experiment.name, middle.experiment.seed) == ("other", 4)


def test_each_experiment_keeps_the_arguments_that_make_it_again(lineage):
    given = ["runs_dir=r", "seed=1", "trainer.max_steps=9", "middle:seed=4", "ground:budget=0.5", "top:threads=2"]
    loaded = load("top.yaml", given)
    assert loaded.arguments == tuple(given)
    for called, arguments in {
        "middle": ("runs_dir=r", "seed=1", "middle:seed=4", "ground:budget=0.5"),
        "ground": ("runs_dir=r", "ground:budget=0.5"),  # its own seed stands in its file
    }.items():
        one = loaded.beneath[called]
        assert one.arguments == arguments
        assert load(one.path, one.arguments).resolved == one.resolved


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("midle:seed=1", "command line: midle:seed: no experiment of this lineage is called 'midle'; there are top, "),
        ("midle:seed=1", "did you mean 'middle'?"),
        ("mid:seed=1", "there are top, middle, ground"),  # the name in the file counts, not the file's
        ("middle:trainer.max_step=1", "command line for middle: trainer.max_step: unknown key"),
        ("middle:seed=-1", "command line for middle: seed: seed must lie in [0, 4294967295], got -1"),
        ("middle:seed", "command line for middle: expected key=value, got 'seed'"),
    ],
)
def test_a_wrong_one_is_named(lineage, argument, message):
    with pytest.raises(ConfigError) as error:
        load("top.yaml", [argument])
    assert message in str(error.value)


def test_it_is_shown_with_where_it_comes_from(lineage):
    loaded = load("top.yaml", ["middle:trainer.max_steps=60", "budget=0.5"])
    text = format_resolved(loaded)
    assert yaml.safe_load(text) == loaded.resolved
    comments = [[part.strip() for part in line.split("#")[1:]] for line in text.splitlines() if line.startswith("#")]
    assert comments == [
        ["ground:budget=0.5", "command line"],
        ["middle:trainer.max_steps=60", "command line for middle"],
        ["middle:budget=0.5", "command line"],
    ]
