"""Which training questions a run takes: by their pass rate under the expert that it starts from."""

from __future__ import annotations

from pathlib import Path

from answering.decoding import Decoding
from answering.live_model import LiveModel
from answering.pass_rates import by_pass_rate, pass_rates
from artifacts.adapter_files import acting_sha256
from artifacts.ranks import is_first
from datamodules.batch import BadExampleError
from datamodules.hashes import data_sha256
from datamodules.prompts import VERSION
from experiment.context import ExperimentContext

FOLDER = "pass_rates"


def chosen_questions(context: ExperimentContext, specialty: str) -> tuple[str, ...] | None:
    """Ids of the training questions of a run, in the order to take them; None where the settings choose none.

    Rates are measured where no run under the same `runs_dir` has measured them, with the expert beneath, which does
    not change while this one trains.

    Args:
        context: of the experiment; its module's settings say `pass_rate`, `pass_rate_samples` and `curriculum`.
        specialty: of the run.

    Raises:
        BadExampleError: no question, or too few for a step, has such a rate.
    """
    settings = context.resolved["module"]["init_args"]
    low, high = settings.get("pass_rate") or (0.0, 1.0)
    easy_first = bool(settings.get("curriculum"))
    if (low, high) == (0.0, 1.0) and not easy_first:
        return None
    data, experiment = context.data(specialty), context.experiment
    beneath = [path for _, path in context.experts_beneath(specialty)]
    made_from = {
        "base": context.base_key,
        "adapters": [acting_sha256(path) for path in beneath],
        "data": data_sha256(data, "train"),
        "prompts": VERSION,
    }
    samples, temperature = settings["pass_rate_samples"], settings["temperature"]
    decoding = Decoding(settings["max_new_tokens"], temperature, samples, experiment.seed, 128)
    own = context.folder.run(specialty).path / FOLDER
    places = [own, *sorted(Path(experiment.runs_dir).glob(f"*/{specialty}/{FOLDER}"))]
    rates = pass_rates(LiveModel(context).attached(beneath), data.splits["train"], decoding, made_from, places)
    found = by_pass_rate(rates, low, high, easy_first=easy_first)
    if is_first():
        print(
            f"{experiment.name}/{specialty}: {len(found)} of {len(rates)} training questions have a pass rate in "
            f"[{low:g}, {high:g}]",
            flush=True,
        )
    if len(found) < settings["questions_per_step"]:
        raise BadExampleError(
            f"specialty {specialty!r}: {len(found)} training questions have a pass rate in [{low:g}, {high:g}], and a "
            f"step takes {settings['questions_per_step']}; widen module.init_args.pass_rate"
        )
    return found
