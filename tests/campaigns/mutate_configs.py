"""Configurations that went wrong in every way we could think of, by seed, and what becomes of them.

    mutant = mutated(seed)
    faults = wrong_with(outcome(mutant, folder))     # in this process
    faults = wrong_with(outcome_of_command(mutant, folder))     # by the command that a user types

Whatever a configuration says: exit code 0 or 2, a message under 4 kB without traceback and without control characters,
within seconds, and nothing that it names is imported or run.
"""

from __future__ import annotations

import contextlib
import io
import os
import random
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from configs.load import CONFIGS, load
from configs.problems import ConfigError
from configs.show import format_resolved
from curation.settings import load_settings, resolved
from merge.recipe import load_recipe

ROOT = CONFIGS.parent
LIMIT_BYTES, LIMIT_SECONDS = 4096, 30
CANARY = "PWNED"
"""A file that a program would leave in the working folder."""
UNWANTED = ("antigravity", "idlelib", "turtledemo", "lib2to3")
"""Modules of Python that nothing of ours imports: whoever has them was led there by a configuration."""
PROGRAM = "{class_path: subprocess.Popen, init_args: {args: [touch, " + CANARY + "]}}"

FRAGMENTS = (
    *("!!timestamp 2001-01-01", "2001-01-01", '"\\x1b[31mred"', '"a\\0b"', '"\\u202egnp"', '"\\ud800"', '"\\x9b2J"'),
    *("9" * 400, "-" + "9" * 5000, "0x" + "f" * 300, "1e400", ".nan", ".inf", "-.inf", "1_000", "1:30", "0o17", "-0.0"),
    *("x" * 300, "x" * 20_000, "🙂" * 300, "[" * 60 + "]" * 60, "{a: " * 60 + "1" + "}" * 60, "[" * 3000, "{" * 500),
    *("!!binary aGk=", "!!set {a}", "!!omap [a: 1]", "!!int x", "!!float x", "!!bool x", "!!str", "!!null x", "!x y"),
    *(
        "!!python/object/apply:os.system [touch " + CANARY + "]",
        "!!python/name:os.system",
        "!!python/module:antigravity",
    ),
    *("~", "yes", "on", "''", '" "', "[]", "{}", "[[]]", "[{}]", "[1, a, null]", "{1: 2}", "{null: 1}", "? [a]\n: b"),
    *(PROGRAM, f"[{PROGRAM}]", f"{{x: {PROGRAM}}}", "{class_path: antigravity.Comic}", "{class_path: 3}"),
    *("{class_path: merge.methods.ties.Ties}", "{class_path: lightning_modules.stage.Stage, init_args: {a: 1}}"),
    *("{init_args: {a: 1}}", "{class_path: configs.schema.Component, init_args: []}", "antigravity.fly", "os.system"),
    *("lightning_modules.stage.torch", "configs.classes.sys.exit", "builtins.eval", "merge.__main__.main", "os"),
    *("datamodules.base.__class__", "..", "a..b", ".a", "a.", "a b.c", "${oc.env:HOME}", "${oc.decode:'1'}", "${seed}"),
    *(
        "${name}",
        "${a.b}",
        '"${"',
        "'${${a}}'",
        '"\\\\${x}"',
        "${data}",
        "*undefined",
        "&a [*a]",
        "&b {<<: *b}",
        "=",
        "<<",
    ),
    *(
        "../../../etc/passwd",
        "/dev/zero",
        "/dev/stdin",
        "/",
        ".",
        "~/.bashrc",
        "a" * 5000 + ".yaml",
        "???",
        "%YAML 1.1",
    ),
    *("---", "...", "@x", "`x`", "- - - 1", "|", ">", "|\n  a\n b", "'", '"', "[", "}", "#", "a: b: c", "\t", ","),
    *("trust", "[os, subprocess]", "[json]", "[[os]]", "-1", "0", "1.5", "true", "null", "10000000000"),
)
"""What stands in place of a value."""
KEYS = (
    *("x" * 300, '"\\x1b[2J"', "1", "null", "yes", "a.b", "class_path", "init_args", "trust", "__class__", "__init__"),
    *(
        '""',
        '" "',
        "<<",
        "=",
        "? a",
        "é",
        "seeds",
        "extends",
        "requires",
        "!!int 3",
        "*a",
        "-",
        '"a\\nb"',
        "0x10",
        "🙂",
    ),
)
"""What stands in place of a key."""
ADDRESSES = ("=", "a" * 500, "model", "data", "sft_dsa:seed", "\x1b[2J:a", "--seed", "a..b", "é")
"""What stands in place of an override's key."""
RAW = (
    "\t",
    "\x00",
    "\x1b[2J",
    "\x85",
    "\u2028",
    "\ufeff",
    ":",
    ": ",
    "- ",
    "{",
    "[",
    "&a ",
    "*a",
    "!!x ",
    "'",
    '"',
    "\n",
    "#",
    "%",
)


@dataclass(frozen=True)
class Mutant:
    """One configuration gone wrong.

    Attributes:
        kind: experiment, recipe or curation.
        text: the file.
        overrides: the command line's settings.
    """

    kind: str
    text: bytes
    overrides: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Outcome:
    """What became of one.

    Attributes:
        code: the exit code; None where it took too long.
        message: what was written to the terminal as an error.
        unwanted: what was run or imported that must not be.
        seconds: how long it took.
    """

    code: int | None
    message: str
    unwanted: tuple[str, ...]
    seconds: float


def seeds() -> dict[str, list[Any]]:
    """The files that are spoilt, by kind."""
    recipe = {
        "sources": {"a": ["runs/a"], "b": [{"path": "runs/b", "relative_to": "runs/a"}]},
        "method": {"class_path": "merge.methods.ties.Ties", "init_args": {"density": 0.2}},
        "out": "merged",
        "weights": {"a": 0.5},
        "rank": "sum",
        "gate": "warn",
        "grams": {"a": {"path": "a.safetensors", "sha256": "0"}},
        "live": {"config": "sft_dsa.yaml", "rows": 4},
    }
    experiments = [yaml.safe_load(path.read_text()) for path in sorted(CONFIGS.glob("*.yaml"))]
    curations = [yaml.safe_load((CONFIGS / f"curation/{name}.yaml").read_text()) for name in ("phantoms", "endpoint")]
    return {"experiment": experiments, "recipe": [recipe, recipe | {"method": "caci"}], "curation": curations}


SEEDS = seeds()


def places(value: Any, path: tuple = ()) -> Iterator[tuple]:
    """Every path in plain data, that of the whole left out."""
    for key, item in value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ():
        yield (*path, key)
        yield from places(item, (*path, key))


def mutated(seed: int) -> Mutant:
    """A configuration with one to four things wrong; the same seed gives the same."""
    chance = random.Random(seed)
    kind = chance.choices(("experiment", "recipe", "curation"), (6, 2, 2))[0]
    content = yaml.safe_load(yaml.safe_dump(chance.choice(SEEDS[kind])))
    marks: dict[str, str] = {}

    def mark(options: tuple[str, ...]) -> str:
        marks[f"MARK{len(marks)}MARK"] = chance.choice(options)
        return f"MARK{len(marks) - 1}MARK"

    overrides: list[str] = []
    for _ in range(chance.randint(1, 4)):
        spoil(content, chance, mark, overrides)
    text = yaml.safe_dump(content, default_flow_style=chance.choice((None, True, False)), allow_unicode=True)
    for name, raw in marks.items():
        text = text.replace(name, raw)
    data = text.encode("utf-8", "surrogatepass")
    if chance.random() < 0.2:
        at = chance.randrange(len(data) + 1)
        data = data[:at] + chance.choice([*(raw.encode() for raw in RAW), b"\xff", b"\xed\xa0\x80"]) + data[at:]
    if chance.random() < 0.03:
        data += bomb(chance).encode()
    return Mutant(kind, data, [one for one in overrides if "\0" not in one])


def spoil(content: Any, chance: random.Random, mark: Callable[[tuple[str, ...]], str], overrides: list[str]) -> None:
    """One thing that goes wrong, in the content or on the command line."""
    *above, last = chance.choice(list(places(content)) or [("name",)])
    within = content
    for key in above:
        within = within[key]
    match chance.choice(("value", "value", "key", "added", "removed", "override", "address")):
        case "value":
            within[last] = mark(FRAGMENTS)
        case "key" if isinstance(within, dict):
            within[mark(KEYS)] = within.pop(last)
        case "added" if isinstance(within, dict):
            within[mark(KEYS) if chance.random() < 0.5 else str(last)[::-1]] = mark(FRAGMENTS)
        case "removed" if last in within or isinstance(within, list):
            del within[last]
        case "override":
            overrides.append(f"{'.'.join(map(str, (*above, last)))}={chance.choice(FRAGMENTS)}")
        case "address":
            overrides.append(f"{chance.choice(ADDRESSES)}={chance.choice(FRAGMENTS)}")


def bomb(chance: random.Random) -> str:
    """Lines whose aliases, merges or references would expand to more than any memory."""
    levels = range(1, 12)
    return "\n" + chance.choice(
        (
            "\n".join(["l0: &l0 [1]", *(f"l{i}: &l{i} [{', '.join([f'*l{i - 1}'] * 10)}]" for i in levels)]),
            "\n".join(["m0: &m0 {a: 1}", *(f"m{i}: &m{i} {{<<: [{', '.join([f'*m{i - 1}'] * 10)}]}}" for i in levels)]),
            "\n".join(["r0: x", *(f"r{i}: '{f'${{r{i - 1}}}' * 10}'" for i in levels)]),
        )
    )


HEARD: list[str] = []


def hear(event: str, arguments: tuple) -> None:
    """Take note of programs and of unwanted modules; an audit hook of Python, which stays for good."""
    if event in ("subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "os.fork", "os.startfile"):
        HEARD.append(f"{event} {str(arguments)[:80]}")
    elif event == "import" and str(arguments[0]).partition(".")[0] in UNWANTED:
        HEARD.append(f"import {arguments[0]}")


class TooSlow(BaseException):
    """Ends what takes too long; nothing catches it by accident."""


def too_slow(*_: Any) -> None:
    """End what takes too long."""
    raise TooSlow


def outcome(mutant: Mutant, folder: Path) -> Outcome:
    """What the reading of a mutant comes to, in this process; as `--print-config` reads it, and prints it.

    Args:
        mutant: what is read.
        folder: an empty one, where the file is written; it becomes the working folder.
    """
    if not READY:  # with all that takes long imported
        load("rl_gba.yaml")
        sys.addaudithook(hear)
        READY.append(True)
    (folder / "mutant.yaml").write_bytes(mutant.text)
    HEARD.clear()
    before, start = signal.signal(signal.SIGALRM, too_slow), time.monotonic()
    signal.alarm(LIMIT_SECONDS)
    output = io.StringIO()
    try:
        with contextlib.chdir(folder), contextlib.redirect_stdout(output):
            read_as(mutant)
        code, message = 0, ""
    except ConfigError as error:
        code, message = 2, str(error)
    except TooSlow:
        code, message = None, ""
    except Exception:
        code, message = 1, traceback.format_exc()
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
    unwanted = [*HEARD, *([CANARY] if (folder / CANARY).exists() else [])]
    return Outcome(code, message, tuple(unwanted), time.monotonic() - start)


READY: list[bool] = []


def read_as(mutant: Mutant) -> None:
    """Read the file `mutant.yaml` in the working folder as what it is."""
    if mutant.kind == "experiment":
        print(format_resolved(load("mutant.yaml", mutant.overrides)))
    elif mutant.kind == "recipe":
        load_recipe(Path("mutant.yaml"), mutant.overrides)
    else:
        resolved(load_settings("mutant.yaml", mutant.overrides))


def outcome_of_command(mutant: Mutant, folder: Path) -> Outcome:
    """What a mutant that is an experiment comes to by the command that a user types."""
    (folder / "mutant.yaml").write_bytes(mutant.text)
    command = [
        sys.executable,
        str(ROOT / "train.py"),
        "--config",
        "mutant.yaml",
        "--print-config",
        "--",
        *mutant.overrides,
    ]
    start = time.monotonic()
    try:
        arguments = [os.fsencode(word) if not word.isascii() else word for word in command]
        done = subprocess.run(arguments, cwd=folder, capture_output=True, timeout=2 * LIMIT_SECONDS, check=False)
    except subprocess.TimeoutExpired:
        return Outcome(None, "", (), time.monotonic() - start)
    unwanted = (CANARY,) if (folder / CANARY).exists() else ()
    message = done.stderr.decode("utf-8", "replace")
    return Outcome(done.returncode, message, unwanted, time.monotonic() - start)


def wrong_with(found: Outcome) -> list[str]:
    """Everything about an outcome that must not be."""
    faults = []
    if found.code is None:
        faults.append(f"no end after {LIMIT_SECONDS} s")
    elif found.code not in (0, 2):
        faults.append(f"exit code {found.code}: {found.message[-600:]}")
    if "Traceback" in found.message:
        faults.append(f"a traceback: {found.message[-600:]}")
    if len(found.message.encode("utf-8", "replace")) > LIMIT_BYTES:
        faults.append(f"a message of {len(found.message)} characters")
    if found.code == 2 and not found.message.strip():
        faults.append("refused without a word")
    if not found.message.replace("\n", "").isprintable():
        faults.append(f"control characters in {found.message!r:.300}")
    return [*faults, *(f"ran or imported: {what}" for what in found.unwanted)]
