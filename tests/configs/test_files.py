"""Reference: the files in configs/ themselves, each loaded as `train.py` does.

Run: pytest tests/configs/test_files.py.
"""

import subprocess
import sys

import pytest
import yaml

from configs.load import CONFIGS, load
from configs.show import format_resolved

EXPERIMENTS = sorted(path.name for path in CONFIGS.glob("*.yaml"))
ARGUMENTS = {"add_specialty.yaml": ["specialty=clinic"]}
"""What an experiment has to be told on the command line."""


def lineage(loaded):
    """An experiment and everything it requires."""
    yield loaded
    for required in loaded.required:
        yield from lineage(required)


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_every_experiment_loads_and_says_what_it_is(name):
    loaded = load(name, ARGUMENTS.get(name, []))
    assert loaded.experiment.description, "say in one sentence what this experiment is"
    assert yaml.safe_load(format_resolved(loaded)) == loaded.resolved


def test_no_two_experiments_share_a_folder():
    names = [load(name, ARGUMENTS.get(name, [])).experiment.name for name in EXPERIMENTS]
    assert sorted(set(names)) == sorted(names)


def test_overrides_of_where_and_how_much_reach_the_whole_lineage():
    for name in EXPERIMENTS:
        for one in lineage(load(name, [*ARGUMENTS.get(name, []), "runs_dir=elsewhere", "budget=0.01"])):
            assert (one.experiment.runs_dir, one.experiment.budget) == ("elsewhere", 0.01)


def test_loading_them_imports_no_torch():
    code = (
        "import sys\nfrom configs.load import load\n"
        "for name in sys.argv[1:]:\n    load(name, ['specialty=clinic'] if name == 'add_specialty.yaml' else [])\n"
        "print(*sorted({'torch', 'lightning', 'transformers', 'lightning_modules.stage'} & set(sys.modules)))"
    )
    command = [sys.executable, "-c", code, *EXPERIMENTS]
    done = subprocess.run(command, capture_output=True, text=True, cwd=CONFIGS.parent, check=False)
    assert (done.returncode, done.stdout.strip()) == (0, ""), done.stderr
