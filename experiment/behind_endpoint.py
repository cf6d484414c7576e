"""What an experiment cannot do with a model that is behind an endpoint, and what asking it would cost."""

from __future__ import annotations

from collections.abc import Iterator

from answering.behind_endpoint import NO_LIKELIHOOD
from answering.decoding import Decoding
from callbacks.evaluate_experts import EvaluateExperts
from configs.build import config_of, import_class
from configs.problems import ConfigError, Problem
from configs.schema import Component
from endpoints.chat import Chat
from experiment.context import ExperimentContext


def check_endpoint(context: ExperimentContext) -> None:
    """Refuse what needs weights, before anything is asked.

    Raises:
        ConfigError: names each setting.
        UnusableError: there is no key where the settings say.
    """
    if not context.is_behind_endpoint:
        return
    experiment = context.experiment
    found = [
        Problem(str(context.path), f"callbacks.{name}.{key}", value, message)
        for name, component in experiment.callbacks.items()
        if component is not None
        for key, value, message in callback_faults(component)
    ]
    if experiment.module is not None:
        message = "a model behind an endpoint cannot be trained; leave it out"
        found.append(Problem(str(context.path), "module", experiment.module.class_path, message))
    if experiment.adapters:
        message = "a model behind an endpoint takes no adapter of ours; serve it with the adapter, and give its name"
        found.append(Problem(str(context.path), "adapters", experiment.adapters, message))
    if found:
        raise ConfigError(found)
    _ = context.endpoint  # before a folder is claimed with the name of a variable that does not exist


def callback_faults(component: Component) -> Iterator[tuple[str, object, str]]:
    """(key, value, message) of what a callback would do with weights."""
    if not issubclass(import_class(component.class_path), EvaluateExperts):
        message = "works on weights, and a model behind an endpoint has none here; leave it out"
        yield "class_path", component.class_path, message
        return
    config = config_of(component)
    if config.protocol == "likelihood":
        yield "init_args.protocol", config.protocol, NO_LIKELIHOOD
    if config.routers:
        message = "routers choose among experts on one base, and there are none behind an endpoint; set routers=[]"
        yield "init_args.routers", list(config.routers), message


def cost_line(context: ExperimentContext, callback: EvaluateExperts) -> str:
    """What the matrix would cost at most; nobody is asked."""
    endpoint, replies = context.endpoint
    examination = callback.matrix.examination()
    todo = [cell for cell in callback.matrix.cells() if not cell.path.exists()]
    chats: list[Chat] = []
    for cell in todo:
        chats += examination.model.first_chats(
            callback.matrix.questions(cell), callback.matrix.guidelines[cell.guideline], cell.guideline
        )
    new = [chat for chat in chats if replies.get(endpoint.key(chat)) is None]
    most = [endpoint.most(chat) for chat in new]
    turns = second_turns(examination.decoding, len(chats)) if callback.config.protocol == "two_turn" else ""
    prompt, completion = map(sum, zip(*most, strict=True)) if most else (0, 0)
    money = endpoint.config.price.told(prompt, completion)
    times = max((endpoint.attempts(chat) for chat in new), default=1)
    known = f"{len(chats)} answers of {endpoint.config.model} to come, {len(chats) - len(new)} of them known"
    cost = f"the others at most {prompt + completion} tokens{money}{turns}"
    return f"  matrix: {known}; {cost}; up to {times} times that where attempts fail"


def second_turns(decoding: Decoding, answers: int) -> str:
    """The part that is not known before the first answers."""
    return f"; then {answers} second turns of at most {decoding.answer_tokens} tokens, with the first in their prompts"
