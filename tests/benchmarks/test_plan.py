"""A cell's id changes with everything that can change its score, and with nothing else."""

import pytest
from backbench.backbones import BadInput, Loading, find_backbone, load_backbone
from backbench.benchmarks.plan import find_backbones, plan, resolve
from backbench.benchmarks.suite import find_suite, list_suites
from backbench.tasks import find_dataset, find_task
from backbench.tasks.task import settings_of


def ids(home, card, target="knn", dataset=None, settings=None, **options):
    return [c.id for c in plan(resolve(target, dataset, settings), find_backbones([card]), home, **options)]


def write(path, **changes):
    keys = {"source": "timm", "model": "test_resnet", "pretrained": "false", "input": "{size: 64}"} | changes
    path.write_text("".join(f"{key}: {value}\n" for key, value in keys.items()))
    return str(path)


def test_same_cell_same_id(home, tiny):
    home.mkdir()
    assert ids(home, str(tiny)) == ids(home, str(tiny))


@pytest.mark.parametrize(
    "change",
    [
        {"model": "test_vit"},
        {"init_seed": 1},
        {"input": "{size: 96}"},
        {"input": "{size: 64, crop: 0.9}"},
        {"pool": "mean"},
    ],
)
def test_what_decides_features_changes_the_id(home, tmp_path, change):
    home.mkdir()
    before = ids(home, write(tmp_path / "a.yaml"))
    assert ids(home, write(tmp_path / "a.yaml", **change)) != before


@pytest.mark.parametrize("change", [{"name": "other"}, {"license": "mit"}, {"paper": "arXiv:1512.03385"}])
def test_what_only_describes_does_not(home, tmp_path, change):
    home.mkdir()
    before = ids(home, write(tmp_path / "a.yaml"))
    assert ids(home, write(tmp_path / "a.yaml", **change)) == before


def test_recipe_limit_task_and_seed_change_the_id(home, tiny):
    home.mkdir()
    variants = [
        ids(home, str(tiny)),
        ids(home, str(tiny), settings={"temperature": 0.1}),
        ids(home, str(tiny), limit=50),
        ids(home, str(tiny), "linear-probe"),
        ids(home, str(tiny), seeds=2)[1:],
    ]
    assert len({tuple(v) for v in variants}) == len(variants)


def test_how_a_network_computes_changes_the_id(home, tiny):
    home.mkdir()
    usual = ids(home, str(tiny))
    assert ids(home, str(tiny), loading=Loading("float32")) == usual
    options = [Loading("bfloat16"), Loading("float16"), Loading(channels_last=True), Loading(compile=True)]
    assert len({tuple(ids(home, str(tiny), loading=o)) for o in options} | {tuple(usual)}) == 5
    # An object in memory computes as it was loaded, whatever the cards beside it are loaded with.
    half = load_backbone(str(tiny), precision="bfloat16")
    [cell] = plan(resolve("knn"), find_backbones([half]), home, loading=Loading("float16"))
    assert cell.loading == Loading("bfloat16")


def test_a_default_written_out_is_the_same_cell(home, tiny):
    home.mkdir()
    assert ids(home, str(tiny), settings={"temperature": [0.02, 0.07, 0.2]}) == ids(home, str(tiny))


def test_a_changed_weight_file_is_another_backbone(home, tmp_path):
    import torch

    home.mkdir()
    (tmp_path / "w").mkdir()
    stats = {"input": "{size: 64, mean: [0.5, 0.5, 0.5], std: [0.5, 0.5, 0.5]}", "checkpoint": "w/weights.pth"}
    found = []
    for value in (0.0, 1.0):
        torch.save({"x": torch.full((3,), value)}, tmp_path / "w" / "weights.pth")
        found.append(ids(home, write(tmp_path / "a.yaml", **stats)))
    assert found[0] != found[1]


def test_suite_settings_name_their_task(home):
    suite = resolve("quick", settings={"knn.temperature": 0.5})
    assert next(e for e in suite.entries if e.task == "knn").recipe == {"temperature": 0.5}
    assert all(e.recipe == {} for e in suite.entries if e.task != "knn")
    with pytest.raises(BadInput, match="knn"):
        resolve("quick", settings={"kn.temperature": 0.5})


def test_one_name_cannot_be_two_backbones(tmp_path):
    (tmp_path / "b").mkdir()
    a, b = write(tmp_path / "a.yaml"), write(tmp_path / "b" / "a.yaml", model="test_vit")
    with pytest.raises(BadInput, match="both named 'a'"):
        find_backbones([a, b])
    assert len(find_backbones([a, a, find_backbone(a)])) == 1


@pytest.mark.parametrize("name", list_suites())
def test_a_packaged_suite_asks_for_what_there_is(name):
    """Every name and key in it, without the data."""
    suite, asked = find_suite(name), []
    assert len(find_backbones(suite.backbones)) == len(suite.backbones) > 0
    for entry in suite.entries:
        task, card = find_task(entry.task), find_dataset(entry.dataset)
        assert task.needs.data in card.kind
        plain = {split for split in task.needs.splits if "*" not in split}
        assert card.source == "digit-scenes" or plain <= card.splits.keys()
        asked.append((entry.task, entry.dataset, entry.pairs, settings_of(task.recipe(entry.recipe))))
    assert not [one for i, one in enumerate(asked) if one in asked[:i]]
