"""A component of a configuration: does its class exist, and does that class take these options?"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from dataclasses import MISSING, dataclass, fields
from typing import Any

from configs.annotations import field_types
from configs.build import import_class, imported_config
from configs.check import check_fields, check_known
from configs.construct import as_plain, construct
from configs.problems import Report, nearest, unknown_key
from configs.schema import Component
from configs.signature import signature
from configs.static import ROOT, NotStaticError, config_class, module_file, source_file
from lightning_modules.rewards.guidelines import load_guidelines

KEYS = ("class_path", "init_args")


@dataclass(frozen=True)
class Target:
    """What a class takes.

    Attributes:
        config: its `Config`, read from source or, where that does not tell, imported.
        owner: the imported class; None when it was not imported.
        arguments: without a `Config`, types of the constructor's arguments; None when any are allowed.
    """

    config: type | None
    owner: type | None = None
    arguments: dict[str, Any] | None = None


def target_of(class_path: str, *, imported: bool = False) -> Target:
    """Find out what a class takes, by its source where that tells.

    Raises:
        NoSuchClassError: there is no such class.
        ImportError: it has to be imported, and that fails.
    """
    if not imported:
        try:
            config = config_class(class_path)
            return Target(config, None, None if config else signature(class_path))
        except NotStaticError:
            pass  # the class is there, but only its module can say more
    cls = import_class(class_path)
    return Target(imported_config(cls), cls)


def check_component(value: Any, key: str, report: Report) -> Component | None:
    """Check a mapping of `class_path` and `init_args`, and everything in it.

    Returns:
        The component with what is right in it; None when there is no class to build.
    """
    if not isinstance(value, Mapping):
        report(key, value, f"expected a mapping of class_path and init_args, got {value!r}")
        return None
    for name in [name for name in value if name not in KEYS]:
        message, suggestion = unknown_key(name, KEYS, "a component")
        report(
            f"{key}.{name}", value[name], message, suggestion or f"options of the class belong under {key}.init_args"
        )
    class_path, init_args = value.get("class_path"), value.get("init_args")
    if not isinstance(class_path, str):
        what = "missing" if class_path is None else f"expected text, got {class_path!r}"
        report(f"{key}.class_path", class_path, f"{what}; a component needs the dotted path of its class")
        return None
    if init_args is not None and not isinstance(init_args, Mapping):
        report(f"{key}.init_args", init_args, f"expected a mapping, got {init_args!r}")
        init_args = None
    return Component(class_path, check_init_args(class_path, init_args or {}, key, report))


def check_init_args(class_path: str, init_args: Mapping[str, Any], key: str, report: Report) -> dict[str, Any]:
    """Check options against their class; returns those that are right, as plain data."""
    good: dict[str, Any] = {}
    for imported in (False, True):
        try:
            target = target_of(class_path, imported=imported)
        except (LookupError, ImportError, TypeError) as error:
            report(f"{key}.class_path", class_path, f"no such class: {error}", similar_class(class_path))
            return {}
        except Exception as error:  # a module may raise what it likes when it is imported
            report(f"{key}.class_path", class_path, f"cannot be imported: {type(error).__name__}: {error}")
            return {}
        try:
            good = check_target(target, class_path, init_args, key, report)
            break
        except NameError:  # reading the source promised more than it kept: the import will tell
            if imported:
                raise
    return {name: check_nested(item, f"{key}.init_args.{name}", report) for name, item in good.items()}


def check_target(
    target: Target, class_path: str, init_args: Mapping[str, Any], key: str, report: Report
) -> dict[str, Any]:
    """Check options against a `Config`, or against the arguments of a constructor."""
    if target.config is not None:
        init_args = {name: on_default(value, name, target.config) for name, value in init_args.items()}
        good = check_fields(target.config, init_args, f"{key}.init_args", report, target.owner)
        if "guidelines" in good and field_types(target.config, target.owner)["guidelines"] == tuple[str, ...]:
            check_guidelines(good["guidelines"], f"{key}.init_args.guidelines", report)
        return good
    if target.arguments is not None:
        # None is required: the program may give the rest when it builds the object
        return check_known(target.arguments, set(), init_args, f"{key}.init_args", report, class_path)
    return dict(init_args)


def on_default(value: Any, name: str, config: type) -> Any:
    """An option that is a component and names no class, laid over the component that is the option's default."""
    if not isinstance(value, Mapping) or "class_path" in value or "init_args" not in value:
        return value
    field = next((field for field in fields(config) if field.name == name), None)
    default = field.default_factory() if field is not None and field.default_factory is not MISSING else None
    if not isinstance(default, Mapping) or "class_path" not in default:
        return value
    init_args = value["init_args"]
    if isinstance(init_args, Mapping):
        init_args = {**default.get("init_args", {}), **init_args}
    return {**default, **value, "init_args": init_args}


def check_guidelines(names: list[str], key: str, report: Report) -> None:
    """Read the guidelines that an option names, each alone and then all together: one may be named twice."""
    faults = []
    for part in [*([name] for name in names), names]:
        try:
            load_guidelines(part)
        except (OSError, ValueError) as error:
            faults.append(str(error))
    for message in dict.fromkeys(faults):
        report(key, names, message)


def check_nested(value: Any, key: str, report: Report) -> Any:
    """Check the components inside free-form options: every mapping with a `class_path`."""
    if isinstance(value, dict) and ("class_path" in value or set(value) == {"init_args"}):
        component = check_component(value, key, report)
        return as_plain(component) if component else value
    if isinstance(value, dict):
        return {name: check_nested(item, f"{key}.{name}", report) for name, item in value.items()}
    if isinstance(value, list):
        return [check_nested(item, f"{key}[{i}]", report) for i, item in enumerate(value)]
    return value


def with_defaults(component: Component) -> dict[str, Any]:
    """A checked component as plain data, the defaults of its `Config` filled in."""
    target = target_of(component.class_path)
    init_args = component.init_args
    if target.config is not None:
        try:
            filled = construct(dict(init_args), target.config, target.owner)
        except NameError:
            target = target_of(component.class_path, imported=True)
            filled = construct(dict(init_args), target.config, target.owner)
        init_args = {name: nested_defaults(value) for name, value in as_plain(filled).items()}
    return {"class_path": component.class_path, "init_args": init_args}


def nested_defaults(value: Any) -> Any:
    """Plain data with the defaults of every component in it filled in."""
    if isinstance(value, dict) and isinstance(value.get("class_path"), str):
        return with_defaults(Component(value["class_path"], dict(value.get("init_args") or {})))
    if isinstance(value, dict):
        return {name: nested_defaults(item) for name, item in value.items()}
    return [nested_defaults(item) for item in value] if isinstance(value, list) else value


def class_paths(class_path: str) -> Iterator[str]:
    """Class paths of this repository's packages, and of the package that a path begins with, read from source."""
    packages = {file.parent for file in ROOT.glob("*/__init__.py") if file.parent.name != "tests"}
    named = module_file(class_path.partition(".")[0])
    if named is not None and named.name == "__init__.py" and not named.is_relative_to(sys.prefix):
        packages.add(named.parent)
    for package in sorted(packages):
        for path in sorted(package.rglob("*.py")):
            dotted = ".".join(path.relative_to(package.parent).with_suffix("").parts).removesuffix(".__init__")
            try:
                yield from (f"{dotted}.{name}" for name in source_file(dotted).classes())
            except LookupError:
                continue  # a file that does not parse offers nothing to suggest


def similar_class(class_path: str) -> str:
    """'did you mean' by the whole path, else by the class's own name in another module."""
    paths = sorted(set(class_paths(class_path)))
    by_name = {path.rpartition(".")[2]: path for path in paths}
    name = nearest(class_path.rpartition(".")[2], by_name)
    near = nearest(class_path, paths, cutoff=0.8) or by_name.get(name or "")
    return f"did you mean {near!r}?" if near else ""
