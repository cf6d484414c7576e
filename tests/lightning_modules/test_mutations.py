"""Reference: the tests themselves, on code that is spoilt on purpose; what nobody notices is a test that is missing.

Run: pytest -m slow tests/lightning_modules/test_mutations.py (about ten minutes).
"""

import inspect
from collections import defaultdict

import pytest

from tests.experiment import test_integration
from tests.lightning_modules import test_dpo, test_reward_model, test_rl_settings, test_stage
from tests.lightning_modules.rl_acts import PARTS, RL
from tests.lightning_modules.sabotages import SABOTAGES
from tests.sabotage import ROOT, Copy

PASSED, NOTICED = 0, 1
FROM_THE_FILE = ("pass_rate", "pass_rate_samples", "curriculum", "start")
"""The experiment reads these without a `Config`; what acts on them is spoilt instead (sabotages.py)."""


@pytest.fixture(scope="module")
def copy(tmp_path_factory):
    found = Copy(tmp_path_factory.mktemp("copy"))
    yield found
    found.close()


def registered():
    """(module, class, field, whether in subclasses too) of every setting, and the test that its register names."""
    assert test_rl_settings, "its import fills the registers"
    stages = (RL, test_stage.COMMON, test_stage.SFT, test_stage.BASE, test_integration.INTEGRATE)
    stages += (test_reward_model.ACTS, test_dpo.ACTS)
    for register in (*stages, *PARTS.values()):
        for field, test in register.tests.items():
            if field in FROM_THE_FILE:
                continue
            config = register.config
            where = (config.__module__, config.__qualname__, field, register in stages)
            file = inspect.getsourcefile(inspect.unwrap(test))
            yield pytest.param(where, f"{file}::{test.__name__}", id=f"{config.__qualname__}.{field}")


def test_every_sabotage_finds_its_place():
    """Code that moves takes its sabotages along; this is seen at once and not by the slow tests alone."""
    lost = [
        f"{sabotage.file}: {sabotage.old!r}"
        for sabotage in SABOTAGES
        if (ROOT / "lightning_modules" / sabotage.file).read_text("utf-8").count(sabotage.old) != 1
    ]
    assert lost == [], "these texts must stand once in their files"


@pytest.mark.slow
def test_what_is_not_spoilt_passes(copy):
    chosen = defaultdict(set)
    for sabotage in SABOTAGES:
        chosen[sabotage.tests[0]].add(f"({sabotage.tests[1]})")
    for file, names in chosen.items():
        done = copy.run([file, "-k", " or ".join(sorted(names))])
        assert done.status == PASSED, done.output


@pytest.mark.slow
@pytest.mark.parametrize("sabotage", SABOTAGES, ids=lambda s: f"{s.file}: {s.why}")
def test_a_sabotage_is_noticed(copy, sabotage):
    file, names = sabotage.tests
    done = copy.run([file, "-k", names], spoil=[(f"lightning_modules/{sabotage.file}", sabotage.old, sabotage.new)])
    assert done.status == NOTICED, f"nobody notices: {sabotage.why}\n{done.output}"


@pytest.mark.slow
@pytest.mark.parametrize(("where", "test"), registered())
def test_a_setting_that_is_ignored_is_noticed(copy, where, test):
    done = copy.run([test.removeprefix(f"{ROOT}/")], ignore=where)
    assert done.status == NOTICED, f"the test that is registered for it does not need it\n{done.output}"
