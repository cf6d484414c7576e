"""mergekit's side of the merge benchmark: experts baked into checkpoints, TIES in fp32, a LoRA extracted again."""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
from pathlib import Path

import yaml

from benchmarks.clock import versions
from benchmarks.merge_work import DENSITY


def run(command: list[str]) -> tuple[float, float]:
    """CPU seconds of a command, and the largest resident memory of any command so far, MiB.

    Raises:
        RuntimeError: it failed; carries the end of what it printed.
    """
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    offline = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"}
    done = subprocess.run(command, env=os.environ | offline, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{command[0]} ended with {done.returncode}:\n{(done.stdout + done.stderr)[-3000:]}")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, after.ru_maxrss / 1024


def main(given: list[str] | None = None) -> None:
    """Merge and extract once, and write what it took."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--inputs", type=Path, required=True)
    parser.add_argument("--rank", type=int, required=True)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    chosen = parser.parse_args(given)
    base, tools, folder = chosen.inputs / "base", Path(sys.executable).parent, chosen.folder
    experts = sorted(chosen.inputs.glob("expert*"))
    config = {
        "merge_method": "ties",
        "base_model": str(base),
        "dtype": "float32",
        "models": [
            {"model": f"{base}+{expert}", "parameters": {"weight": 1.0, "density": DENSITY}} for expert in experts
        ],
    }
    (folder / "merge.yml").write_text(yaml.safe_dump(config))
    common = ["--lora-merge-cache", str(folder / "cache"), "--lora-merge-dtype", "float32", "--num-threads", "1"]
    merge = [str(tools / "mergekit-yaml"), str(folder / "merge.yml"), str(folder / "dense")]
    merged_s, merged_mib = run([*merge, *common, "--quiet", "--no-copy-tokenizer"])
    extract = [str(tools / "mergekit-extract-lora"), "--model", str(folder / "dense"), "--base-model", str(base)]
    extract += ["--out-path", str(folder / "lora"), "--max-rank", str(chosen.rank)]
    extracted_s, whole_mib = run([*extract, "--exclude-regex", "embed|lm_head|norm", *common, "--quiet"])
    result = {
        "cpu_s": merged_s + extracted_s,
        "phases": {"merge": merged_s, "extract": extracted_s},
        # Of whole processes, mapped files and the base included: nothing less can be seen from outside.
        "peak_added_mib": max(merged_mib, whole_mib),
        "dense": str(folder / "dense"),
        "versions": versions("torch", "peft", "mergekit"),
    }
    chosen.out.write_text(json.dumps(result))


if __name__ == "__main__":
    main()
