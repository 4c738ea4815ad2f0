"""A frozen task run again from the bank: no forward pass, the same score, next to none of the time."""

import pytest
from backbench import load_backbone
from backbench.backbones import BackboneCard
from backbench.benchmarks.cell import Job, compute
from backbench.benchmarks.plan import plan, resolve

pytestmark = pytest.mark.speed


@pytest.mark.parametrize("task", ["knn"])
def test_warm_rerun_of_a_frozen_task(task, tmp_path, interleaved, report):
    size = {"size": 128, "mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5)}
    card = BackboneCard(source="timm", model="vit_tiny_patch16_224", name="tiny-vit", pretrained=False, input=size)
    backbone = load_backbone(card.model_copy(update={"model_args": {"img_size": 128}}))
    [cell] = plan(resolve(task), [backbone], tmp_path, limit=300)
    job, passes, results = Job(tmp_path), [], []
    backbone.body.patch_embed.register_forward_pre_hook(lambda _, args: passes.append(len(args[0])))

    def run():
        results.append(compute(cell, job, tmp_path / "cell", lambda *_: None))

    [cold] = interleaved(run, rounds=1)
    pushed = sum(passes)
    assert results[0].cost.images > 0
    assert pushed >= results[0].cost.images  # dry passes too, which measure sizes
    [warm] = interleaved(run, rounds=3)
    assert sum(passes) == pushed
    assert {result.cost.images for result in results[1:]} == {0}
    for result in results[1:]:
        assert result.scores == results[0].scores
        assert result.predictions.sha256 == results[0].predictions.sha256
    report(
        measure=f"warm rerun of {task}",
        against="its own cold run",
        ours=warm,
        theirs=cold,
        bar="<= 1 % + 0.5 s",
        held="no forward pass, same score bit for bit",
    )
    assert warm <= 0.01 * cold + 0.5
