"""Stands in for Ray: tasks are threads of this process, and a group of machines is this one several times.

What it cannot show is Ray itself; a slow test of test_launchers.py does, where Ray is installed.
"""

import sys
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from types import ModuleType, SimpleNamespace
from typing import Any

ASKED: list[tuple[str, dict[str, Any]]] = []
"""(name of the function, resources) of every task."""


class RayError(Exception):
    """Of a worker that went away."""


class Remote:
    """A function that runs elsewhere."""

    def __init__(self, function: Callable, settings: dict[str, Any]) -> None:
        self.function, self.settings = function, settings

    def options(self, **settings: Any) -> "Remote":
        return Remote(self.function, settings)

    def remote(self, *given: Any) -> Future:
        ASKED.append((self.function.__name__, self.settings))
        return POOL.submit(self.function, *given)


POOL = ThreadPoolExecutor(16)


def waited(futures: list[Future], num_returns: int = 1, timeout: float | None = None):
    done: list[Future] = []
    while len(done) < num_returns:
        found, _ = wait([f for f in futures if f not in done], timeout, FIRST_COMPLETED)
        done += list(found)[: num_returns - len(done)]
    return done, [f for f in futures if f not in done]


def got(asked: Future | list[Future]) -> Any:
    return [one.result() for one in asked] if isinstance(asked, list) else asked.result()


def placement_group(bundles: list[dict], strategy: str) -> SimpleNamespace:
    ASKED.append((strategy, {"bundles": bundles}))
    return SimpleNamespace(ready=lambda: POOL.submit(lambda: None))


def installed(monkeypatch) -> list[tuple[str, dict[str, Any]]]:
    """Put it in Ray's place; returns what is asked of it."""
    made = {name: ModuleType(name) for name in ("ray", "ray.util", "ray.util.placement_group")}
    made["ray.util.scheduling_strategies"] = ModuleType("ray.util.scheduling_strategies")
    here = {"init": lambda **settings: ASKED.append(("init", settings)), "shutdown": lambda: None, "wait": waited}
    here |= {"get": got, "cancel": Future.cancel, "exceptions": SimpleNamespace(RayError=RayError)}
    here |= {"remote": lambda function: Remote(function, {}), "util": made["ray.util"]}
    vars(made["ray"]).update(here)
    made["ray.util"].get_node_ip_address = lambda: "127.0.0.1"
    vars(made["ray.util.placement_group"]).update(
        placement_group=placement_group, remove_placement_group=lambda group: ASKED.append(("removed", {}))
    )
    made["ray.util.scheduling_strategies"].PlacementGroupSchedulingStrategy = lambda group, **place: place
    for name, module in made.items():
        monkeypatch.setitem(sys.modules, name, module)
    ASKED.clear()
    return ASKED
