"""One LoRA SFT step, ours beside TRL's: `python -m benchmarks.sft_vs_trl --size 5m --work fixed --out results`.

Eight rows per step, a picture each, loss on answers only. `fixed`: prompts of 200 tokens, answers of 64. `mixed`:
prompts of 120 to 240 and answers of 16 to 128 tokens. Rows, their order and the first adapter are the same for both.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from benchmarks import driver, made_model, work


def main(given: list[str] | None = None) -> Path:
    """Run the benchmark and write its result."""
    chosen = driver.arguments(__doc__.partition("\n")[0], work.SFT_WORKS, given)
    driver.check_peer(chosen.peer_python)
    sides = {"ours": (driver.ours_python(), "ours_sft"), "peer": (chosen.peer_python, "trl_sft")}
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        made_model.tokenizer(chosen.size, folder)
        repeats = driver.in_turn(chosen, folder, sides)
        fixed = {name: found[0]["fixed_batch"] for name, found in repeats.items()}
        return driver.write(driver.beside(repeats, fixed), chosen, "sft_vs_trl")


if __name__ == "__main__":
    main()
