"""Answering the missing cells of a matrix in several processes, each on a GPU of its own where there are several."""

from __future__ import annotations

import os
import signal
import warnings
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import active_children, get_context
from multiprocessing.process import BaseProcess
from typing import TYPE_CHECKING

import torch

from answering.examination import Cell
from artifacts.gpus import own_gpu, take_gpu
from callbacks.matrix_cells import MatrixCells
from guards.telling import doing, telling

if TYPE_CHECKING:
    from callbacks.evaluate_experts import EvaluateExperts
    from experiment.context import ExperimentContext

CELLS_OF_A_WORKER = 4
"""Cells that a further process is started for, at least: it has to load the libraries and the base first."""


def answer_cells(matrix: MatrixCells, todo: Sequence[Cell]) -> None:
    """Answer the questions of cells, in worker processes if the experiment has several; each piece goes to disk.

    Raises:
        RuntimeError: a worker was ended from outside; says how.
    """
    experiment, examination = matrix.experiment.experiment, matrix.examination()
    answered = [cell for cell in todo if examination.is_answered(cell)]
    asking = [cell for cell in todo if not examination.is_answered(cell)]
    workers, start = min(experiment.workers, len(asking) // CELLS_OF_A_WORKER), get_context("spawn")
    if workers <= 1 or matrix.experiment.endpoint:  # an endpoint is asked side by side by one client, on one budget
        examination.run(todo)
        return
    if answered:
        examination.run(answered)
    places = start.Queue()
    for worker in range(workers):
        places.put(own_gpu(worker, experiment.trainer))
    with ProcessPoolExecutor(workers, start, initializer=take_gpu, initargs=(places,)) as pool:
        parts = [(matrix.config, matrix.experiment.without_data(), asking[i::workers]) for i in range(workers)]
        shares = [pool.submit(answer_part, *part) for part in parts]
        children = active_children()
        try:
            with doing(""):  # the workers speak for themselves
                for share in shares:
                    share.result()
        except BrokenProcessPool as error:
            raise RuntimeError(how_a_worker_ended(children)) from error


def answer_part(config: EvaluateExperts.Config, experiment: ExperimentContext, todo: Sequence[Cell]) -> None:
    """What a worker process does: its share of the cells."""
    torch.set_num_threads(experiment.experiment.threads)
    warnings.filterwarnings("ignore", category=FutureWarning)
    with telling(), doing(f"{experiment.experiment.name}: examining, in process {os.getpid()}"):
        MatrixCells(config, experiment).examination().run(todo)


def how_a_worker_ended(children: Sequence[BaseProcess]) -> str:
    """Names the signal that ended a worker of the evaluation; the others were stopped because of it."""
    for child in children:
        child.join(timeout=5)
    codes = sorted(child.exitcode or 0 for child in children)
    code = next((code for code in codes if code < 0 and code != -signal.SIGTERM), codes[0] if codes else 0)
    name = signal.Signals(-code).name if code < 0 else f"exit code {code}"
    return (
        f"a worker process of the evaluation was ended by {name}{'; was memory short?' if name == 'SIGKILL' else ''}; "
        "what was answered is kept, and the same command goes on"
    )
