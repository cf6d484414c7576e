"""The live base with adapters swapped in and out: what every question to an expert or an agent is put to."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch

from answering.context import BaseContext
from artifacts.adapter_files import open_adapter, read_adapter, read_manifest
from artifacts.adoption import Base, check_shapes
from lightning_modules.policy import Policy


class LiveModel:
    """An experiment's base on the device that asks, loaded when it is first needed.

    Who leaves what: after `attached` and `acting`, adapters stay attached to the policy, frozen and without effect. The
    next caller keeps those that it shares and takes out all others, whoever left them: `attached` and `acting` do so,
    and training begins with `Policy.bare`. Questions to one expert in a row read its files once, and what is attached
    is written down nowhere but in the policy.
    """

    def __init__(self, context: BaseContext, kept: Iterable[Path] = ()) -> None:
        """Keep the experiment; nothing is loaded yet.

        Args:
            context: has the base.
            kept: adapters that stay attached once they have acted, for who changes between them often.
        """
        self.context, self.kept = context, frozenset(map(attached_name, kept))

    @property
    def fingerprint(self) -> str:
        """Of the base."""
        return self.context.policy()[1]

    def base(self) -> Base:
        """The bare base, for adapters that come from elsewhere."""
        policy, fingerprint = self.context.policy()
        return policy.base(fingerprint)

    def check(self, adapters: Iterable[Path]) -> None:
        """Refuse adapters that could not be attached, so that it is told before the first question.

        Raises:
            AdapterError: an adapter is damaged, of another base, or changes layers that the base has not.
        """
        base = self.base()
        for path in dict.fromkeys(adapters):
            check_shapes(open_adapter(path, base_fingerprint=base.fingerprint).shapes, base, str(path))

    @contextmanager
    def attached(self, adapters: Sequence[Path]) -> Iterator[Policy]:
        """The policy with these adapters beside its weights, for a while; none means the bare base.

        Raises:
            AdapterError: an adapter is damaged, or of another base.
        """
        policy, fingerprint = self.context.policy()
        names = [attached_name(path) for path in adapters]
        policy.bare(keep={*names, *self.kept})
        on_gpu = torch.cuda.is_available() and self.context.experiment.trainer.get("accelerator") != "cpu"
        policy.to("cuda" if on_gpu else "cpu")
        for name, path in zip(names, adapters, strict=True):
            if name not in policy.adapters:
                adapter = read_adapter(path, base_fingerprint=fingerprint)
                policy.load_adapter(name, adapter.config, adapter.tensors)
        policy.activate(names)
        try:
            yield policy
        finally:
            policy.activate(())

    @contextmanager
    def acting(self, adapters: Sequence[Path]) -> Iterator[Policy]:
        """The policy with these adapters folded into its weights, for a while; none means the bare base.

        Raises:
            AdapterError: an adapter is damaged, or of another base.
        """
        with self.attached(adapters) as policy, policy.folded():
            yield policy


def attached_name(adapter: Path) -> str:
    """The name under which an adapter is attached: it stands for the contents of its files, wherever they lie.

    Raises:
        AdapterError: there is no valid manifest.
    """
    contents = sorted((name, entry["sha256"]) for name, entry in read_manifest(adapter)["files"].items())
    return "m" + hashlib.sha256(json.dumps(contents).encode()).hexdigest()[:16]
