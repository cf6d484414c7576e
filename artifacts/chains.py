"""Adapters that are named by their folders: what each is called, and what it stands on."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path

from artifacts.adapter_files import AdapterError, adapter_sha256, is_complete, read_manifest


def named_chains(folders: Sequence[str], taken: Collection[str], runs_dir: Path) -> dict[str, list[Path]]:
    """Row name -> the adapters that act together, lowest first.

    Args:
        folders: adapter folders, or folders that hold one under the name `adapter`.
        taken: row names of others.
        runs_dir: where parents are looked for besides the folders' own experiments.

    Raises:
        AdapterError: a folder is no adapter, or an adapter's parent is not found.
    """
    found = list(dict.fromkeys(adapter_folder(Path(folder)) for folder in folders))
    chains = [chain_of(path, [*found, *adapters_beside(path), *adapters_in(runs_dir)]) for path in found]
    return dict(zip(row_names(found, taken), chains, strict=True))


def adapter_folder(folder: Path) -> Path:
    """The folder of the manifest: the one named, or `adapter` in it; its form is checked.

    Raises:
        AdapterError: neither is an adapter.
    """
    inner = folder / "adapter"
    found = (inner if inner.is_dir() else folder).resolve()
    read_manifest(found)
    return found


def chain_of(adapter: Path, known: Iterable[Path]) -> list[Path]:
    """An adapter with all that it grew from, lowest first; parents are told by the hash of their weights.

    Args:
        adapter: its folder.
        known: where parents may lie.

    Raises:
        AdapterError: a parent is not among them.
    """
    places = list(known)
    chain = [adapter]
    while wanted := (read_manifest(chain[0])["parent"] or {}).get("sha256"):
        parent = next((path for path in places if path not in chain and adapter_sha256(path) == wanted), None)
        if parent is None:
            raise AdapterError(
                f"{chain[0]}: grew from the adapter with sha256 {wanted}, which is neither among `adapters` nor in the "
                "experiments beside it or under runs_dir; name the parent's folder in `adapters` too"
            )
        chain.insert(0, parent)
    return chain


def adapters_beside(adapter: Path) -> list[Path]:
    """Adapters of the experiments that lie beside an adapter's own: runs/<experiment>/<specialty>/adapter."""
    return adapters_in(adapter.parents[2]) if len(adapter.parents) > 2 else []


def adapters_in(runs_dir: Path) -> list[Path]:
    """Every whole adapter of the experiments under a folder."""
    return [path.resolve() for path in sorted(runs_dir.glob("*/*/adapter")) if is_complete(path)]


def row_names(adapters: Sequence[Path], taken: Collection[str]) -> list[str]:
    """The end of each path that tells it from the others: `experiment/specialty`, `experiment/merged/method`, or more.

    Examples:
        >>> row_names([Path("/r/a/x/adapter"), Path("/r/a/merged/ties/adapter")], ["base"])
        ['a/x', 'a/merged/ties']
        >>> row_names([Path("/r/0/a/x/adapter"), Path("/r/1/a/x/adapter")], ["base"])
        ['0/a/x', '1/a/x']
    """
    parts = [(path.parent if path.name == "adapter" else path).parts[1:] for path in adapters]
    used = [3 if part[-2:-1] == ("merged",) else 2 for part in parts]
    while True:
        names = ["/".join(part[-count:]) for part, count in zip(parts, used, strict=True)]
        counts = Counter(names)
        longer = [
            count + 1 if (counts[name] > 1 or name in taken) and count < len(part) else count
            for name, part, count in zip(names, parts, used, strict=True)
        ]
        if longer == used:
            return names
        used = longer
