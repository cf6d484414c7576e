"""Reference: the files of the experts, whose data and steps a control has together.

Run: pytest tests/configs/test_controls.py.
"""

import pytest

from configs.load import load

PAIRS = {"joint_sft": "sft_dsa", "sequential_sft": "sft_dsa", "joint_rl": "rl_gba"}


def resolved(name: str, *overrides: str) -> dict:
    return load(f"{name}.yaml", list(overrides)).resolved


@pytest.mark.parametrize(("control", "experts"), PAIRS.items())
def test_a_control_has_the_data_and_steps_of_all_experts_together(control, experts):
    joint, each = resolved(control), resolved(experts)
    count = len(each["specialties"])
    assert joint["specialties"] == each["specialties"]  # batch sizes too
    assert joint["trainer"]["max_steps"] == count * each["trainer"]["max_steps"]
    assert joint["budget"] == each["budget"]
    capacity = {"lora_rank": count, "lora_alpha": count}  # of all experts together, at their scale
    differ = {k for k, v in joint["module"]["init_args"].items() if v != each["module"]["init_args"][k]}
    assert differ == set(capacity)
    for key, factor in capacity.items():
        assert joint["module"]["init_args"][key] == factor * each["module"]["init_args"][key]
    assert joint["train"] == ("sequential" if control.startswith("sequential") else "mixed")


def test_off_policy_differs_from_integration_by_who_writes_and_by_the_direction_of_the_kl():
    ours, control = (resolved(name) for name in ("integrate", "off_policy"))
    init_args = [one.pop("module")["init_args"] for one in (ours, control)]
    differ = {key for key in init_args[0] if init_args[0][key] != init_args[1][key]}
    assert differ == {"written_by", "form"}
    assert {key for key in ours if ours[key] != control[key]} == {"name", "description"}


def test_the_table_of_controls_has_all_of_them_in_one_lineage():
    loaded = load("controls.yaml", [])
    assert {"sft_dsa", "rl_gba", "integrate", "off_policy", *PAIRS} <= set(loaded.beneath)
    assert loaded.resolved["callbacks"]["evaluate"]["init_args"]["routers"] == ["oracle", "learned"]
