"""Tasks are found without importing them."""

import subprocess
import sys

import numpy as np
import pytest
from backbench.backbones import BadInput, Unavailable
from backbench.tasks import find_task, list_tasks, registry

FROZEN = {
    *("linear-probe", "sgd-probe", "multilabel-probe", "query-probe", "layer-probe", "truncated"),
    *("knn", "few-shot", "one-shot", "zero-shot", "retrieval", "image-text-retrieval", "ood-shift", "ood-detection"),
}


def test_every_task_is_listed_as_it_declares_itself():
    entries = list_tasks()
    assert {e.name for e in entries} >= FROZEN
    assert len({e.name for e in entries}) == len(entries)
    for entry in entries:
        task = find_task(entry.name)
        assert (task.name, task.family, task.version) == (entry.name, entry.family, entry.version)
        assert entry.description
        assert task.headline in task.scores
        assert task.recipe() == task.Recipe()


def test_listing_imports_nothing_heavy():
    code = (
        "import sys; from backbench.tasks import list_tasks; list_tasks();"
        "print(sorted({'torch', 'timm', 'sklearn', 'numpy', 'pyarrow', 'PIL'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "[]"


def test_the_task_of_the_readme(make_backbone, squares_data, context):
    text = (registry.ROOM / "README.md").read_text()
    code = text.partition("```python\n")[2].partition("```")[0]
    names = {"__package__": "backbench.tasks.classification", "__name__": "backbench.tasks.classification.readme"}
    exec(code, names)
    task, data = names["NearestMean"](), squares_data()
    outcome = task.run(make_backbone(), data, task.recipe(), context)
    assert task.measure(outcome.predictions, data).scores(np.ones(50))["top1"] > 50


def test_a_mistyped_task_is_guessed():
    with pytest.raises(BadInput, match="there is no task 'linear_probe'; did you mean 'linear-probe'"):
        find_task("linear_probe")


def test_a_task_of_another_package(tmp_path, monkeypatch):
    (tmp_path / "plugged.py").write_text(
        '"""Counts images."""\n'
        "from backbench.tasks import Needs, Scores, Task, percent\n"
        "class Count(Task):\n"
        '    name, family, version = "count", "other", 3\n'
        '    needs = Needs(data="classification")\n'
        "    scores = Scores(share=percent)\n"
    )
    info = tmp_path / "plugged-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: plugged\nVersion: 1\n")
    (info / "entry_points.txt").write_text("[backbench.tasks]\ncount = plugged:Count\ngone = not_installed_here:Task\n")
    monkeypatch.syspath_prepend(tmp_path)
    registry.list_tasks.cache_clear()
    try:
        (entry,) = [e for e in list_tasks() if e.name == "count"]
        assert (entry.version, entry.description) == (3, "Counts images")
        assert "plugged" not in sys.modules
        assert find_task("count").family == "other"
    finally:
        registry.list_tasks.cache_clear()


def test_a_task_whose_package_is_missing_names_it(monkeypatch):
    entry = registry.TaskEntry("odd", "other", 1, "", "backbench.tasks.not_there", "Odd")
    monkeypatch.setattr(registry, "list_tasks", lambda: [entry])
    with pytest.raises(Unavailable, match=r"task odd: .*not_there"):
        find_task("odd")
