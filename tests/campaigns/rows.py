"""Memory of a set of many rows: what reading, holding and asking for training rows takes, by the number of rows.

    python -m tests.campaigns.rows --count 100000

Rows are MMedExpert's, without pictures, with four traces of 400 characters. Each stage is one line of JSON: seconds,
what the process then holds, and the most that it ever held, in bytes.
"""

from __future__ import annotations

import argparse
import json
import resource
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from datamodules.check.quick import quick_check
from datamodules.hashes import data_sha256
from datamodules.mmedexpert import MMedExpert
from datamodules.readers import read_rows

GUIDELINES = ("differential", "intuitive", "analytical", "bayesian")


def lines(count: int) -> Iterator[str]:
    """Rows as the file has them."""
    for n in range(count):
        trace = f"finding {n} " + "the heart is wide and the lungs are clear " * 9
        row = {
            "id": f"row-{n:08}",
            "specialty": "pediatrics",
            "patient_id": f"case-{n // 3}",
            "images": [],
            "question": f"which finding of film {n} explains what the child has had for a week",
            "options": {"A": f"wide {n}", "B": f"narrow {n}", "C": "both", "D": "neither"},
            "answer": "A",
            "reasoning": {name: trace[:400] for name in GUIDELINES},
            "provenance": {"source": "made", "source_id": str(n), "licence": "CC0"},
        }
        yield json.dumps(row) + "\n"


def held() -> int:
    """Bytes of the process that are in memory."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def measured(stage: str, count: int, begin: float, before: int) -> None:
    """Print a line."""
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    found = {"stage": stage, "rows": count, "seconds": round(time.monotonic() - begin, 1), "held": held() - before}
    print(json.dumps({**found, "a_row": round((held() - before) / count), "most": most - before}), flush=True)


def main(count: int) -> None:
    """Measure the stages in order, in this process."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "train.jsonl"
        with file.open("w", encoding="utf-8") as out:
            out.writelines(lines(count))
        before, begin = held(), time.monotonic()
        print(json.dumps({"stage": "file", "rows": count, "bytes": file.stat().st_size}), flush=True)
        if sum(1 for _ in read_rows(file, file.parent)) != count:
            raise RuntimeError("rows were lost")
        measured("read, nothing kept", count, begin, before)
        data = MMedExpert(MMedExpert.Config(root=folder))
        _ = data.splits
        measured("splits", count, begin, before)
        rows = data.rows()
        measured("training rows", count, begin, before)
        _ = rows[len(rows) // 2]
        data_sha256(data, "train")
        measured("hash of the rows", count, begin, before)
        quick_check(data)
        measured("check before a run", count, begin, before)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=100_000, help="rows")
    main(parser.parse_args(sys.argv[1:]).count)
