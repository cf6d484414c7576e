"""Which GPU each of several worker processes has for itself, told before any of them touches one."""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping
from multiprocessing import parent_process
from multiprocessing.process import BaseProcess
from typing import Any

import torch

VISIBLE = "CUDA_VISIBLE_DEVICES"


def visible_gpus() -> list[str]:
    """The GPUs that this process may use, as `CUDA_VISIBLE_DEVICES` names them; CUDA is not started to count them.

    What stands behind an index below 0 is not visible, as CUDA has it.
    """
    listed = os.environ.get(VISIBLE)
    if listed is None:
        return [str(number) for number in range(torch.cuda.device_count())]
    found: list[str] = []
    for name in map(str.strip, listed.split(",")):
        if not name or name.startswith("-"):
            break
        found.append(name)
    return found


def own_gpu(worker: int, trainer: Mapping[str, Any]) -> dict[str, str]:
    """What to set in a worker's environment, so that it sees one GPU: worker after worker the next, round and round.

    Nothing where there is none to give, where the run is on the CPU, and where `devices` names the GPUs by number.

    Args:
        worker: its number, from 0.
        trainer: the experiment's section of that name.
    """
    if trainer.get("accelerator") == "cpu" or isinstance(trainer.get("devices"), list):
        return {}
    gpus = visible_gpus()
    return {VISIBLE: gpus[worker % len(gpus)]} if gpus else {}


def take_gpu(places: Any) -> None:
    """Begin a worker process of a pool: take the next of the environments that `own_gpu` made, one for each worker.

    It ends with its parent, however that ends: a pool's idle worker would wait for its next task for ever.

    Args:
        places: a queue of them.
    """
    threading.Thread(target=_end_after, args=(parent_process(),), daemon=True).start()
    os.environ.update(places.get())


def _end_after(parent: BaseProcess | None) -> None:
    if parent is not None:
        parent.join()
        os._exit(1)
