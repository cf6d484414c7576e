"""What running an experiment would mean: its data, parameters, steps and hours, from one step of each stage."""

from __future__ import annotations

from collections.abc import Sequence

from answering.live_base import LiveBase
from callbacks.evaluate_experts import EvaluateExperts
from callbacks.experiment_callback import ExperimentCallback
from callbacks.merge_experts import AUTO, MergeExperts
from datamodules.check import quick_counts
from datamodules.prompts import NEUTRAL
from datamodules.replay import again
from evaluation.detectable import DISAGREEMENT, smallest_told
from evaluation.kept import KEPT
from experiment.behind_endpoint import cost_line
from experiment.claim import refuse_changed
from experiment.context import ExperimentContext
from experiment.continuation import checkpoint_step
from experiment.judges import plans
from experiment.memory_choice import within_memory
from experiment.memory_table import memory_lines
from experiment.rehearsal import Rehearsal, answer_seconds, base_of, moved, rehearse
from experiment.run import asked_besides, check_questions, own_sets, refuse_what_cannot_be
from lightning_modules.policy import Policy


def dry_run_report(context: ExperimentContext) -> str:
    """Lines about the lineage: per experiment its data, parameters, steps and seconds.

    Each stage is built and takes a step in a temporary folder, see `experiment.rehearsal`.

    Raises:
        BadExampleError: the data cannot be used.
        ConfigError: the folders hold results of other settings.
        Exception: whatever the first step of a run would raise.
    """
    for member in context.lineage:
        member.remembers = False
    refuse_what_cannot_be(context)
    refuse_changed(context)
    lines: list[str] = []
    total = 0.0
    live = LiveBase()
    for member in context.lineage:
        found, seconds = experiment_lines(member, wanted_of(member, context), live)
        lines += found
        total += seconds
    lines.append(f"in all about {duration(total)} here; gates, Gram matrices and cards come on top")
    return "\n".join(lines)


def wanted_of(member: ExperimentContext, context: ExperimentContext) -> list[str]:
    """The specialties of a member of the lineage that running the experiment would train or examine."""
    asked = list(context.experiment.only) or context.specialties
    if member is not context and member.provides == "expert":
        return [specialty for specialty in member.specialties if specialty in asked]
    return list(member.experiment.only) or member.specialties


def experiment_lines(context: ExperimentContext, wanted: Sequence[str], live: LiveBase) -> tuple[list[str], float]:
    """One experiment's part of the report, and the seconds that it will take; `live` as of `rehearse`."""
    experiment = context.experiment
    training = context.provides != "nothing"
    if training:
        how = "each on" if context.runs_of(wanted) == list(wanted) else "in one run over"
        lines = [f"{experiment.name}: {experiment.module.class_path}, {context.steps} steps {how} {', '.join(wanted)}"]
    else:
        lines = [f"{experiment.name}: examines {', '.join(context.examined)} on {', '.join(wanted)}"]
    examined = any(isinstance(callback, EvaluateExperts) for callback in context.callbacks())
    counts = quick_counts(own_sets(context, wanted), training=training, examined=asked_besides(context))
    for specialty in wanted:
        (run,) = context.runs_of([specialty])
        state = "finished" if context.is_run_complete(run) else "to do"
        lines.append(f"  {specialty} ({state})" if training else f"  {specialty}")
        for name, report in counts[specialty].items():
            letters = " ".join(f"{letter} {share:.0%}" for letter, share in report["letters"].items())
            lines.append(
                f"    {name:5} {report['examples']:6} questions of {report['patients']:5} patients, "
                f"{report['with_traces']} with traces; chance {report['random_guess']:.1%}; letters {letters}"
            )
            if name == "test" and not examined:
                lines.append(visible_line(specialty, report["examples"], report["patients"]))
    lines += replay_lines(context, wanted[0])
    seconds, policy = 0.0, None
    todo = [run for run in context.runs_of(wanted) if not context.is_run_complete(run)]
    if todo:
        check_questions(context, todo)
        told, seconds, policy = training_lines(context, todo, live)
        lines += told
    for callback in context.callbacks():
        if isinstance(callback, ExperimentCallback) and (plan := callback.plan()):
            lines.append(f"  {plan}")
        if isinstance(callback, EvaluateExperts):
            told, taken = matrix_lines(context, callback, policy, live)
            lines += told
            seconds += taken
    return lines, seconds


def replay_lines(context: ExperimentContext, specialty: str) -> list[str]:
    """How many rows of a step are of another set; nothing where none are."""
    replay = context.experiment.replay
    if replay is None:
        return []
    size = context.data(specialty).config.batch_size
    rows = again(replay.share, size)
    return [f"  replayed: {rows} of the {size} rows of every step are of {replay.data.class_path}"]


def matrix_lines(
    context: ExperimentContext, callback: EvaluateExperts, policy: Policy | None, live: LiveBase
) -> tuple[list[str], float]:
    """What the matrix will take and could show, the former in seconds too; `policy`: the base, where it is loaded."""
    if context.is_behind_endpoint:
        told, taken = cost_line(context, callback), 0.0
    else:
        policy = policy or base_of(moved(context, context.experiment.runs_dir), live)[0]
        told, taken = answer_lines(context, callback, policy)
    lines = [told]
    for specialty in callback.matrix.specialties:
        asked = callback.matrix.chosen(specialty)
        lines.append(visible_line(specialty, len(asked), len({example.patient_id for example in asked})))
    return lines, taken


def training_lines(context: ExperimentContext, todo: Sequence[str], live: LiveBase) -> tuple[list[str], float, Policy]:
    """What the runs need and take, the latter in seconds too, and the model as the step that was tried left it.

    Raises:
        ConfigError: they do not fit into this machine's memory.
    """
    lines = [] if context.provides == "base" else memory_lines(context, todo[0])
    context = within_memory(context, todo[0])
    made = rehearse(context, todo[0], live)
    told, seconds = step_lines(context, todo, made)
    return [*lines, *parameter_lines(context, todo[0], made), *told], seconds, made.policy


def parameter_lines(context: ExperimentContext, specialty: str, made: Rehearsal) -> list[str]:
    """Counts of parameters, and tokens of some prompts."""
    prompts = [made.policy.prompt(example, "") for example in context.data(specialty).splits["train"][:64]]
    lengths = sorted(len(prompt.ids) for prompt in prompts)
    return [
        f"  parameters: {made.base / 1e6:.2f} M in the base, {made.trained / 1e6:.3f} M trained",
        f"  prompts ({NEUTRAL}): median {lengths[len(lengths) // 2]} tokens, longest of 64: {lengths[-1]}",
    ]


def step_lines(context: ExperimentContext, todo: Sequence[str], made: Rehearsal) -> tuple[list[str], float]:
    """What a step takes and what the runs will take, and the latter in seconds."""
    left = sum(context.steps - steps_done(context, specialty) for specialty in todo)
    workers = min(context.experiment.workers, len(todo))
    seconds = left * made.step_seconds / workers
    fresh = f", with a fresh {' and a fresh '.join(made.stand_ins)}" if made.stand_ins else ""
    beside = f" in {workers} workers" if workers > 1 else ""
    return [
        f"  one step: {made.step_seconds:.2f} s on {todo[0]}{fresh}",
        f"  training: {left} steps to do{beside}, about {duration(seconds)}",
        *(f"  {plan}" for plan in plans(context, left)),
    ], seconds


def steps_done(context: ExperimentContext, specialty: str) -> int:
    """Steps that an unfinished run need not do again."""
    checkpoint = context.folder.run(specialty).checkpoint
    return min(context.steps, checkpoint_step(checkpoint)) if checkpoint.exists() else 0


def answer_lines(context: ExperimentContext, callback: EvaluateExperts, policy: Policy) -> tuple[str, float]:
    """What the matrix will take, in words and in seconds; answers that are there already are not told apart."""
    config = callback.config
    models = set(context.examined)
    for merging in context.callbacks():
        if isinstance(merging, MergeExperts):
            names = [*merging.methods(), *([AUTO] if merging.config.auto else [])]
            models |= {f"{context.experiment.name}/merged/{name}" for name in names}
    matrix = callback.matrix
    asked = [q for variant in matrix.variants for s in matrix.specialties for q in matrix.asked(s, variant)]
    kept = [] if config.kept is None else matrix.chosen(KEPT)
    answers = len(models) * (len(asked) * len(matrix.guidelines) + len(kept)) * config.samples
    if not answers:
        return "  matrix: nothing to ask", 0.0
    limit = max(1, matrix.new_tokens + (config.answer_tokens if config.protocol == "two_turn" else 0))
    each = answer_seconds(policy, asked or kept, limit)
    workers = context.experiment.workers
    seconds = answers * each / workers
    told = f"  matrix: {len(models)} models, {answers} answers, at most {each:.3f} s each at their full length"
    return told + f"{f' in {workers} workers' if workers > 1 else ''}: at most {duration(seconds)}", seconds


def visible_line(specialty: str, questions: int, patients: int) -> str:
    """The smallest difference between two models that so many questions could show."""
    seen = f"smallest visible difference between two models, in points: {smallest_told(questions, patients)}"
    how = f"80 % power at 5 %, if {DISAGREEMENT:.0%} of them tell the two apart"
    return f"    {specialty}: {questions} questions of {patients} patients; {seen} ({how})"


def duration(seconds: float) -> str:
    """Seconds in words of a fitting size.

    Examples:
        >>> duration(95), duration(600), duration(9000)
        ('95 s', '10 min', '2.5 h')
    """
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
