"""Reference: by hand; GPUs are counted by a stand-in. Run: pytest tests/experiment/test_gpus.py."""

import os
import queue
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from artifacts.gpus import own_gpu, take_gpu, visible_gpus
from callbacks import evaluate_experts, matrix_workers
from experiment import side_by_side

VISIBLE = "CUDA_VISIBLE_DEVICES"


@pytest.fixture
def three_gpus(monkeypatch):
    monkeypatch.delenv(VISIBLE, raising=False)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)


def test_workers_take_gpus_in_turn(three_gpus):
    before = torch.cuda.is_initialized()
    assert [own_gpu(worker, {})[VISIBLE] for worker in range(5)] == ["0", "1", "2", "0", "1"]
    assert torch.cuda.is_initialized() == before


@pytest.mark.parametrize(
    ("listed", "found"),
    [("4,6", ["4", "6"]), (" 1 , 0 ", ["1", "0"]), ("2,-1,3", ["2"]), ("", []), ("-1", []),
     ("GPU-8f2a,MIG-11", ["GPU-8f2a", "MIG-11"])],
)  # fmt: skip
def test_a_list_of_visible_gpus_is_respected(three_gpus, monkeypatch, listed, found):
    monkeypatch.setenv(VISIBLE, listed)
    assert visible_gpus() == found
    assert own_gpu(1, {}) == ({VISIBLE: found[1 % len(found)]} if found else {})


def test_nothing_is_set_without_gpus_on_the_cpu_and_where_numbers_are_given(three_gpus, monkeypatch):
    assert own_gpu(0, {"accelerator": "cpu"}) == own_gpu(0, {"devices": [2]}) == {}
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    assert own_gpu(0, {}) == {}


@pytest.mark.parametrize(("trainer", "expected"), [({}, ["5", "7", "5"]), ({"accelerator": "cpu"}, ["5,7"] * 3)])
def test_each_training_worker_is_started_with_a_gpu_of_its_own(monkeypatch, tmp_path, trainer, expected):
    started = []

    class Started:
        def __init__(self, command, env, **_):
            started.append((command, env))

        def poll(self):
            return 0

    monkeypatch.setenv(VISIBLE, "5,7")
    monkeypatch.setenv("LOCAL_RANK", "0")
    monkeypatch.setattr(side_by_side.subprocess, "Popen", Started)
    settings = SimpleNamespace(workers=3, trainer=trainer, name="gba")
    context = SimpleNamespace(
        experiment=settings, path=tmp_path, arguments=(), called="gba", lineage=[], specialties=[]
    )
    side_by_side.run_side_by_side([context], ["a", "b", "c", "d"])
    assert [env[VISIBLE] for _, env in started] == expected
    assert all("LOCAL_RANK" not in env and env["PATH"] == os.environ["PATH"] for _, env in started)
    assert all(command[-2:] == ["--part", "train"] for command, _ in started)  # what follows is made once, not by each
    assert ['gba:only=["a", "d"]' in command for command, _ in started] == [True, False, False]


def test_each_examining_worker_takes_a_gpu_of_its_own(machine, monkeypatch, three_gpus):
    from configs.load import load
    from experiment.run import assemble

    taken, parts = [], []

    class Pool:
        """Begins every worker as a real pool does, in this process."""

        def __init__(self, workers, start, initializer, initargs):
            assert start.get_start_method() == "spawn"
            for _ in range(workers):
                with monkeypatch.context() as patch:
                    patch.setenv(VISIBLE, "none")
                    initializer(*initargs)
                    taken.append(os.environ[VISIBLE])

        def __enter__(self):
            return self

        def __exit__(self, *_):
            pass

        def submit(self, function, config, experiment, todo):
            parts.append(todo)
            return SimpleNamespace(result=lambda: None)

    monkeypatch.setattr(matrix_workers, "ProcessPoolExecutor", Pool)
    context = assemble(load(str(machine.files / "gba.yaml"), [f"runs_dir={machine.runs}", "workers=2"]))
    callback, here = evaluate_experts.EvaluateExperts(experiment=context), []
    examination = SimpleNamespace(is_answered=lambda cell: cell == 8, run=here.append)
    monkeypatch.setattr(callback.matrix, "examination", lambda: examination)
    callback.compute([*range(9)])
    assert (taken, parts) == (["0", "1"], [[0, 2, 4, 6], [1, 3, 5, 7]])
    assert here == [[8]]  # nobody has to be asked for it
    context.experiment = replace(context.experiment, trainer={"accelerator": "cpu"})
    callback.compute([*range(8)])
    assert taken[2:] == ["none", "none"]
    callback.compute([*range(7)])  # too few for two processes
    assert (len(parts), here[1:]) == (4, [[*range(7)]])


def test_a_worker_of_a_pool_takes_what_is_next(monkeypatch):
    places = queue.Queue()
    for place in ({VISIBLE: "3"}, {}):
        places.put(place)
    monkeypatch.setenv(VISIBLE, "3,4")
    take_gpu(places)
    assert os.environ[VISIBLE] == "3"
    take_gpu(places)
    assert os.environ[VISIBLE] == "3"


def test_workers_of_a_pool_end_with_a_parent_that_was_killed(tmp_path):
    script = tmp_path / "pool.py"
    script.write_text(
        "import os, signal\n"
        "from concurrent.futures import ProcessPoolExecutor\n"
        "from multiprocessing import get_context\n"
        "from artifacts.gpus import take_gpu\n"
        "if __name__ == '__main__':\n"
        "    start = get_context('spawn')\n"
        "    places = start.Queue()\n"
        "    places.put({})\n"
        "    with ProcessPoolExecutor(1, start, initializer=take_gpu, initargs=(places,)) as pool:\n"
        "        pool.submit(os.getpid).result()\n"
        "        os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    path = {"PYTHONPATH": str(Path(__file__).resolve().parents[2])}
    # The worker holds the other end of this pipe: as long as it lives, we wait, and at last that is an error.
    ended = subprocess.run([sys.executable, str(script)], stdout=subprocess.PIPE, timeout=120, env=os.environ | path)
    assert ended.returncode == -signal.SIGKILL
