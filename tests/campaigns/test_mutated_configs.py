"""Reference: none is needed; whatever a configuration says, it is read or refused in a few clear lines.

Run: pytest tests/campaigns/test_mutated_configs.py. The whole campaign runs thousands of seeds.
"""

import pytest

from tests.campaigns.mutate_configs import mutated, outcome, outcome_of_command, wrong_with


@pytest.mark.parametrize("first", [0, 20, 40])
def test_whatever_a_configuration_says_it_is_read_or_refused_in_a_few_clear_lines(tmp_path, first):
    faults = {}
    for seed in range(first, first + 20):
        (tmp_path / str(seed)).mkdir()
        if found := wrong_with(outcome(mutated(seed), tmp_path / str(seed))):
            faults[seed] = found
    assert faults == {}


def test_the_same_seed_gives_the_same_mutant():
    assert [mutated(seed) for seed in range(50)] == [mutated(seed) for seed in range(50)]
    assert len({mutated(seed).text for seed in range(50)}) > 45


@pytest.mark.slow
def test_a_thousand_of_them(tmp_path):
    faults = {}
    for seed in range(1000, 2000):
        (tmp_path / str(seed)).mkdir()
        if found := wrong_with(outcome(mutated(seed), tmp_path / str(seed))):
            faults[seed] = found
    assert faults == {}


@pytest.mark.slow
def test_some_by_the_command_that_a_user_types(tmp_path):
    experiments = [seed for seed in range(2000, 2060) if mutated(seed).kind == "experiment"][:25]
    faults = {}
    for seed in experiments:
        (tmp_path / str(seed)).mkdir()
        if found := wrong_with(outcome_of_command(mutated(seed), tmp_path / str(seed))):
            faults[seed] = found
    assert faults == {}
