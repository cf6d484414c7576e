"""One GRPO step, ours beside TRL's: `python -m benchmarks.rl_vs_trl --size 5m --work fixed --out results`.

`fixed`: 4 questions of 200 tokens with a picture, 8 completions of 64 tokens each. `varlen`: completions of 8 to 64
tokens, the same lengths for both. `dead`: half of the groups have equal rewards, no KL term. `growth`: ours alone with
4, 8 and 16 completions per question.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

from benchmarks import driver, made_model, work

GROWTH = (4, 8, 16)
"""G of the growth work."""


def fixed_batches(chosen: argparse.Namespace, folder: Path) -> dict[str, dict[str, float]]:
    """Loss and gradient norm of both sides on the fixed batch, which is the same for every work."""
    same = argparse.Namespace(**{**vars(chosen), "work": "fixed"})
    sides = {"ours": (driver.ours_python(), "ours_rl"), "peer": (chosen.peer_python, "trl_rl")}
    return {
        name: driver.run_worker(python, module, same, folder, "--fixed-batch")
        for name, (python, module) in sides.items()
    }


def growth(chosen: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Ours over the group size, the sizes in turn."""
    found: dict[str, list[dict]] = {str(group): [] for group in GROWTH}
    for _ in range(chosen.repeats):
        for group, results in found.items():
            results.append(driver.run_worker(driver.ours_python(), "ours_rl", chosen, folder, "--group", group))
    ours = {group: driver.middle(results) for group, results in found.items()}
    first, last = ours[str(GROWTH[0])], ours[str(GROWTH[-1])]
    return {
        "ours": ours,
        "ratio_cpu_last_first": last["cpu_s"] / first["cpu_s"],
        "ratio_memory_last_first": last["peak_added_mib"] / first["peak_added_mib"],
        "versions": {"ours": found[str(GROWTH[0])][0]["versions"]},
        "repeats": {"ours": found},
    }


def main(given: list[str] | None = None) -> Path:
    """Run the benchmark and write its result."""
    chosen = driver.arguments(__doc__.partition("\n")[0], work.RL_WORKS, given)
    if chosen.work != "growth":
        driver.check_peer(chosen.peer_python)
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        made_model.tokenizer(chosen.size, folder)
        if chosen.work == "growth":
            return driver.write(growth(chosen, folder), chosen, "rl_vs_trl")
        fixed = fixed_batches(chosen, folder)
        sides = {"ours": (driver.ours_python(), "ours_rl"), "peer": (chosen.peer_python, "trl_rl")}
        return driver.write(driver.beside(driver.in_turn(chosen, folder, sides), fixed), chosen, "rl_vs_trl")


if __name__ == "__main__":
    main()
