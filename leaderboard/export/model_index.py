"""One backbone's scores as `model-index`: the metadata of a model card on the Hugging Face hub."""

from collections.abc import Iterable, Mapping

from ..result import Result
from .runs import Runs, runs_of

TASKS = {  # family → what the hub calls such a task
    "classification": "image-classification",
    "ood": "image-classification",
    "detection": "object-detection",
    "segmentation": "image-segmentation",
    "retrieval": "image-feature-extraction",
}


def as_model_index(results: Iterable[Result], hub: Mapping[str, str] | None = None) -> str:
    """The YAML of `model-index` for the results of one backbone: every score, the mean over seeds.

    `hub`: data set → `org/name@revision`, of those that lie on the hub.
    """
    from huggingface_hub import EvalResult, ModelCardData

    runs = runs_of(results)
    entries = [
        EvalResult(
            task_type=TASKS.get(one.first.task.family, "image-feature-extraction"),
            dataset_type=(hub or {}).get(one.first.dataset.name, one.first.dataset.name).partition("@")[0],
            dataset_name=one.first.dataset.name,
            dataset_revision=(hub or {}).get(one.first.dataset.name, "").partition("@")[2] or None,
            metric_type=name,
            metric_name=f"{one.first.task.name}: {name}" + (f" ({score.unit})" if score.unit else ""),
            # The hub groups by data set: which task a metric is of stands with the metric.
            metric_config=one.first.task.name,
            metric_value=score.value,
            metric_args={"interval": [score.low, score.high], **_protocol(one)},
        )
        for one in runs
        for name, score in one.scores.items()
    ]
    return ModelCardData(model_name=runs[0].first.backbone.name, eval_results=entries).to_yaml() + "\n"


def _protocol(runs: Runs) -> dict:
    first = runs.first
    limit = {} if first.dataset.limit is None else {"limit": first.dataset.limit}
    seeds = {"seeds": [r.seed for r in runs.results], "results": [r.id for r in runs.results]}
    return {"version": first.task.version, "protocol": first.protocol[:16]} | limit | seeds
