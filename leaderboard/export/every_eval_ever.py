"""Results in the schema of Every Eval Ever (github.com/evaleval/every_eval_ever, 0.3.0): a JSON file a result."""

import hashlib
import json
import re
import uuid
from collections.abc import Iterable, Mapping
from typing import Any

from ..result import Result, Score

SCHEMA = "0.3.0"
COLLECTION = "backbench"
UNITS = {"%": "percent", "": "points"}
# Windows keeps these names for itself, and the collection refuses them everywhere.
RESERVED = {"CON", "PRN", "AUX", "NUL", "DATA", *(f"{port}{i}" for port in ("COM", "LPT") for i in range(1, 10))}


def as_every_eval_ever(results: Iterable[Result], hub: Mapping[str, str] | None = None) -> dict[str, str]:
    """Path in the collection → JSON. `hub`: data set → `org/name@revision`, of those that lie on the hub."""
    found = {}
    for result in sorted(results, key=lambda r: (r.task.name, r.dataset.name, r.seed, r.id)):
        developer, model = _identity(result.backbone.name)
        path = f"data/{COLLECTION}/{developer}/{model}/{_uuid(result)}.json"
        found[path] = json.dumps(_record(result, developer, model, hub or {}), indent=2, allow_nan=False) + "\n"
    return found


def _record(result: Result, developer: str, model: str, hub: Mapping[str, str]) -> dict[str, Any]:
    timestamp = str(int(result.created.timestamp()))
    return {
        "schema_version": SCHEMA,
        "evaluation_id": f"{COLLECTION}/{developer}_{model}/{result.id}",
        "evaluation_timestamp": timestamp,
        "retrieved_timestamp": timestamp,  # of the record: the same result gives the same file whenever it is written
        "source_metadata": {
            "source_name": "backbench",
            "source_type": "evaluation_run",
            "source_organization_name": "unknown",  # a result says nothing of who ran it
            "evaluator_relationship": "other",
            "additional_details": {"result": result.id, "cell": result.cell_id, "trust": result.trust},
        },
        "eval_library": {"name": "backbench", "version": result.code_version, "additional_details": result.environment},
        "model_info": _model(result, developer, model),
        "evaluation_results": [_score(result, name, score, hub) for name, score in result.scores.items()],
    }


def _model(result: Result, developer: str, model: str) -> dict[str, Any]:
    b = result.backbone
    facts = {key: b.fact(key) for key in ("source", "model", "family", "method", "data", "license")}
    facts |= {"parameters": b.parameters, "macs": b.macs, "weights_sha256": b.weights_digest}
    facts |= {"card_sha256": b.card_digest, "transform": _text(b.transform), "loading": _text(b.loading)}
    return {
        "name": b.name,
        "id": f"{developer}/{model}",
        "developer": developer,
        "additional_details": {
            "deployment_type": "self_deployed",
            "model_availability": "unknown",  # a card may name a file that nobody else has
            **{key: str(value) for key, value in facts.items() if value is not None},
        },
    }


def _score(result: Result, name: str, score: Score, hub: Mapping[str, str]) -> dict[str, Any]:
    task = result.task
    # Rounding may push a perfect score past the end of its range by a billionth.
    value, low, high = (min(max(v, score.range_low), score.range_high) for v in (score.value, score.low, score.high))
    return {
        "evaluation_result_id": f"{result.id}:{name}",
        "evaluation_name": f"{task.name}/{name}",
        "source_data": _data(result, hub),
        "metric_config": {
            "metric_id": f"{COLLECTION}.{task.name}.{name}",
            "metric_name": name,
            "metric_unit": UNITS.get(score.unit, score.unit),
            "lower_is_better": not score.higher_is_better,
            "score_type": "continuous",
            "min_score": score.range_low,
            "max_score": score.range_high,
            "additional_details": {
                "task_version": str(task.version),
                "headline": _text(name == task.headline),
                "recipe": _text(result.recipe),
                "chosen": _text(result.chosen),
                "seed": str(result.seed),
            },
        },
        "score_details": {
            "score": value,
            "uncertainty": {
                "confidence_interval": {
                    "lower": low,
                    "upper": high,
                    "confidence_level": 0.95,
                    "method": "percentile bootstrap over test examples",
                },
            },
        },
    }


def _data(result: Result, hub: Mapping[str, str]) -> dict[str, Any]:
    data = result.dataset
    details = {"kind": data.kind, "fingerprints": _text(data.fingerprints), "sizes": _text(data.sizes)}
    details |= {} if data.limit is None else {"limit": str(data.limit)}
    if data.name not in hub:
        return {"dataset_name": data.name, "source_type": "other", "additional_details": details}
    id, _, revision = hub[data.name].partition("@")
    details |= {"revision": revision} if revision else {}
    return {"dataset_name": data.name, "source_type": "hf_dataset", "hf_repo": id, "additional_details": details}


def _identity(name: str) -> tuple[str, str]:
    """Developer and model, as names of folders: the two parts of `timm/resnet50`; of a bare name nobody's, `local`."""
    developer, slash, model = name.partition("/")
    return (_folder(developer), _folder(model)) if slash else ("local", _folder(name))


def _folder(text: str) -> str:
    plain = re.sub(r"[^A-Za-z0-9@+=,._-]+", "_", text).strip("._ ") or "unnamed"
    return f"{plain}_" if plain.partition(".")[0].upper() in RESERVED else plain


def _uuid(result: Result) -> uuid.UUID:
    """In the form of version 4, as the collection asks; from the record, so that the same one has the same name."""
    return uuid.UUID(bytes=hashlib.sha256(result.id.encode()).digest()[:16], version=4)


def _text(value: Any) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"))
