"""Completion for the shell: names of experiments, and the keys that the chosen one has.

    eval "$(python train.py --completion bash)"      # or zsh

The shell asks `python -m configs.complete [--config NAME]` once for each experiment and remembers what it says. Nothing
that a configuration trusts is imported for this, and torch is not either.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from dataclasses import fields
from pathlib import Path
from typing import get_args, get_type_hints

from typing_extensions import override

from configs.files import CONFIGS, GROUPS
from configs.load import Loaded, load
from configs.problems import ConfigError
from configs.schema import Experiment, Fit
from configs.show import flattened
from configs.trainer import TrainerArguments
from configs.words import bare

OPTIONS = ("--config", "--print-config", "--dry-run")
NOT_ALONE = ("class_path", "init_args")
"""Last parts of keys that are written with the whole component, and not alone."""
BASH = """\
declare -gA _train_py_words
_train_py() {
    COMPREPLY=()
    [[ "${COMP_WORDS[1]##*/}" == train.py && $COMP_CWORD -gt 1 ]] || return 0
    local line="${COMP_LINE:0:COMP_POINT}" config="" before="" word current
    current="${line##*[[:space:]]}"
    for word in $line; do
        [[ "$before" == --config ]] && config="$word"
        before="$word"
    done
    local place="${COMP_WORDS[1]%train.py}" key="${PWD}:$config"
    [[ "$config" == "$current" ]] && key="${PWD}:" config=""
    if [[ -z "${_train_py_words[$key]}" ]]; then
        _train_py_words[$key]="$(PYTHONPATH="${place:-.}${PYTHONPATH:+:$PYTHONPATH}" \\
            "${COMP_WORDS[0]}" -m configs.complete ${config:+--config "$config"} 2>/dev/null)"
    fi
    local IFS=$'\\n' cut="" found
    [[ "$current" == *[=:]* ]] && cut="${current%"${current##*[=:]}"}"
    for found in ${_train_py_words[$key]}; do
        [[ "$found" == "$current"* ]] && COMPREPLY+=("${found#"$cut"}")
    done
    [[ "${COMPREPLY[*]}" == *= || "${COMPREPLY[*]}" == *: ]] && compopt -o nospace
    return 0
}
complete -o default -F _train_py python python3
"""
ZSH = """\
typeset -gA _train_py_words
_train_py() {
    if [[ "${words[2]:t}" != train.py || $CURRENT -lt 3 ]]; then
        _files
        return
    fi
    local config="" place="${words[2]%train.py}" key
    (( ${words[(I)--config]} && ${words[(I)--config]} + 1 < CURRENT )) && config="${words[${words[(I)--config]}+1]}"
    key="$PWD:$config"
    if [[ -z "${_train_py_words[$key]}" ]]; then
        _train_py_words[$key]="$(PYTHONPATH="${place:-.}${PYTHONPATH:+:$PYTHONPATH}" \\
            "${words[1]}" -m configs.complete ${config:+--config} ${config:+"$config"} 2>/dev/null)"
    fi
    compadd -S '' -- ${(f)_train_py_words[$key]}
}
(( $+functions[compdef] )) || { autoload -Uz compinit && compinit }
compdef _train_py python python3
"""
SCRIPTS = {"bash": BASH, "zsh": ZSH}
"""Shell -> what it evaluates once."""


def experiments() -> list[str]:
    """The bare names of the experiments in configs/, and of YAML files in the working folder."""
    return sorted({path.name for folder in (CONFIGS, Path.cwd()) for path in folder.glob("[!.]*.yaml")})


def of_type(config: type) -> Iterator[str]:
    """`key=` of every field of a dataclass, or `key=value` where only some values are allowed."""
    hints = get_type_hints(config, include_extras=True)
    for one in fields(config):
        hint = bare(hints[one.name])
        values = ("true", "false") if hint is bool else [str(value) for value in get_args(hint) if type(value) is str]
        yield from (f"{one.name}={value}" for value in values or [""])


def chosen_files() -> Iterator[str]:
    """`model=NAME`, `data=NAME` and `launcher=NAME` of every file in those folders of configs/."""
    for group in GROUPS:
        yield from (f"{group}={path.stem}" for path in sorted((CONFIGS / group).glob("*.yaml")))


def keys(loaded: Loaded) -> Iterator[str]:
    """The dotted keys of an experiment and, behind their names, of those that it requires."""
    for called, one in {"": loaded, **loaded.beneath}.items():
        start = f"{called}:" if called else ""
        known = [key for key in flattened(one.resolved) if key.rpartition(".")[2] not in NOT_ALONE]
        yield from (f"{start}{key}=" for key in known)
        yield from (f"{start}data.{name}=" for name in shared(one))
    yield from (f"only=[{name}]" for name in loaded.experiment.specialties)


def shared(loaded: Loaded) -> list[str]:
    """Options that all of an experiment's sets have, which are set together under `data`."""
    sets = [set(one["init_args"]) for one in loaded.resolved["specialties"].values()]
    return sorted(set.intersection(*sets)) if sets else []


def words(config: str = "") -> list[str]:
    """Everything that may stand on the command line of `train.py`.

    Args:
        config: the experiment that was chosen; empty before one is. Of one that is wrong, or that needs a package which
            it trusts, the keys that every experiment has are told.
    """
    if not config:
        return [*experiments(), *OPTIONS]
    try:
        own = list(keys(load(config, ["trust=[]"])))
    except ConfigError:
        own = []
    sections = {"fit": Fit, "trainer": TrainerArguments}
    general = [*of_type(Experiment), *(f"{name}.{key}" for name, one in sections.items() for key in of_type(one))]
    general += chosen_files()
    told = {word.partition("=")[0] for word in general if not word.endswith("=")}
    return list(dict.fromkeys([*general, *(word for word in own if word[:-1] not in told), *OPTIONS]))


class PrintScript(argparse.Action):
    """An option that prints what a shell evaluates, and ends the program, as `--help` does."""

    @override
    def __call__(
        self, parser: argparse.ArgumentParser, namespace: object, values: object, option: object = None
    ) -> None:
        print(SCRIPTS[str(values)], end="")
        parser.exit()


def main(arguments: Sequence[str]) -> None:
    """Print the words, one a line."""
    print("\n".join(words(arguments[1] if arguments[:1] == ["--config"] and len(arguments) > 1 else "")))


if __name__ == "__main__":
    main(sys.argv[1:])
