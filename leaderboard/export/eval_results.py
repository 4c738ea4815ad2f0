"""One backbone's headlines as `.eval_results` files, which the hub shows with the model and with the benchmark."""

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping

import yaml

from ...backbones.errors import BadInput
from ..result import Result
from .runs import Runs, runs_of


def as_eval_results(results: Iterable[Result], hub: Mapping[str, str]) -> dict[str, str]:
    """File name → YAML, a file a data set, for `.eval_results/` in a model's repository.

    `hub`: data set → `org/name@revision`; figures on other data have no place in this format and are left away.
    Raises BadInput where none is left.
    """
    from huggingface_hub import EvalResultEntry, eval_result_entries_to_yaml

    entries = defaultdict(list)
    runs = runs_of(results)
    for one in runs:
        name = one.first.dataset.name
        if name not in hub:
            continue
        id, _, revision = hub[name].partition("@")
        entry = EvalResultEntry(
            dataset_id=id,
            task_id=one.first.task.name,
            value=one.scores[one.first.task.headline].value,
            dataset_revision=revision or None,
            date=max(r.created for r in one.results).isoformat(),
            notes=_notes(one),
        )
        entries[re.sub(r"[^A-Za-z0-9._-]+", "-", name)].append(entry)
    if not entries:
        there = ", ".join(sorted({one.first.dataset.name for one in runs}))
        raise BadInput(f"eval-results: for data sets on the Hugging Face hub alone, not {there}; use model-index")
    return {
        f"{name}.yaml": yaml.safe_dump(eval_result_entries_to_yaml(found), sort_keys=False, allow_unicode=True)
        for name, found in entries.items()
    }


def _notes(runs: Runs) -> str:
    first, score = runs.first, runs.scores[runs.first.task.headline]
    seeds = f", mean of {len(runs.results)} seeds" if len(runs.results) > 1 else ""
    limit = f", at most {first.dataset.limit} examples a split" if first.dataset.limit else ""
    made = f"backbench {first.code_version}, {first.task.name} v{first.task.version}{seeds}{limit}"
    headline = first.task.headline + (f" in {score.unit}" if score.unit else "")
    interval = f"{headline}, 95% interval {score.low:.4g} to {score.high:.4g}"
    return f"{made}; {interval}; results {', '.join(r.id for r in runs.results)}"
