"""The faults of Battle of the Backbones' published code (arXiv 2310.19909), one by one: none of them is here.

Faults that lie in one room are tested there:

    ResNet-50 is A1 in one task and torchvision V1 in another    test_resnet50_a1_and_torchvision_v1_are_two_backbones
    one label names several sets of weights                      test_one_label_is_one_set_of_weights
    "ViT IN-1k" resolves to IN-21k weights                       test_vit_augreg_in1k_is_not_in21k_ft_in1k
    "ConvNeXt-XL IN-1k" is IN-22k fine-tuned on IN-1k            test_convnext_xl_in22k_ft_in1k_says_so
    configurations train from scratch without saying so          test_no_card_trains_from_scratch_by_default
    the Stable Diffusion label loads another version             test_stable_diffusion_card_names_the_weights_it_loads
    VICReg is ranked on an untrained projection  test_vicreg_embedding_is_the_pooled_2048_not_a_random_projection
    MiDaS is ranked on classifier scores                         test_midas_embedding_is_not_the_1000_way_classifier
    CLIP networks get ImageNet's statistics                      test_clip_is_never_normalised_with_imagenet_statistics
    MoCo v3's ResNet loads no weight, as its prefix stays        test_moco_resnet_prefix_is_stripped
"""

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from backbench import load_backbone, run
from backbench.backbones import NotApplicable
from backbench.tasks import Bank, Context, find_dataset, find_task, load_dataset

ROOM = Path(__file__).parent / "backbones"
KINDS = {  # small networks of the kinds on which the published linear probe stopped, each with an input size of its own
    "resnet": ("resnet18", "{layers: [1, 1, 1, 1], channels: [8, 8, 16, 16]}", 64),
    "convnext": ("convnext_atto", "{depths: [1, 1, 1, 1], dims: [8, 16, 16, 32]}", 64),
    "swinv2-256": (
        "swinv2_tiny_window8_256",
        "{depths: [1, 1, 1, 1], embed_dim: 12, num_heads: [1, 1, 1, 1]}",
        256,
    ),
    "mae-vit": ("vit_base_patch16_224", "{depth: 2, embed_dim: 32, num_heads: 2}", 64),
}


@pytest.fixture
def card(tmp_path):
    """Makes a card of one of KINDS with random weights: its path."""

    def make(kind):
        model, args, size = KINDS[kind]
        path = tmp_path / f"{kind}.yaml"
        path.write_text(
            f"source: timm\nmodel: {model}\nmodel_args: {args}\npretrained: false\n"
            f"input: {{size: {size}, mean: [0.5, 0.5, 0.5], std: [0.5, 0.5, 0.5]}}\n"
        )
        return str(path)

    return make


def test_every_fault_named_here_has_its_test():
    written = "".join(path.read_text() for path in ROOM.glob("test_*.py"))
    named = set(re.findall(r"\btest_\w+", __doc__))
    assert len(named) == 10
    assert {name for name in named if f"def {name}(" not in written} == set()


@pytest.mark.parametrize("kind", KINDS)
def test_the_linear_probe_runs_on_every_kind_of_network(kind, card, home):
    report = run("linear-probe", [card(kind)], limit=40)
    assert report.failed == {}
    [result] = report.results.values()
    assert result.backbone.transform["size"] == KINDS[kind][2]


def test_retrieval_feeds_each_network_images_of_its_own_size(card, home):
    report = run("retrieval", [card("swinv2-256"), card("resnet")], limit=40)
    assert report.failed == {}
    sizes = {r.backbone.name: r.backbone.transform["size"] for r in report.results.values()}
    assert sizes == {"swinv2-256": 256, "resnet": 64}


def test_a_frozen_network_is_never_in_training_mode(card, home, tmp_path):
    """Batch statistics must not move, nor units drop out, while features are taken."""
    backbone = load_backbone(card("resnet")).train()
    modes, before = [], {name: tensor.clone() for name, tensor in backbone.state_dict().items()}
    backbone.body.register_forward_pre_hook(lambda module, _: modes.append(module.training))
    backbone.body.conv1.register_forward_pre_hook(lambda module, _: modes.append(module.training))
    data = load_dataset(find_dataset("digit-scenes"), "classification").limited(40)
    task = find_task("linear-probe")
    task.run(backbone, data, task.recipe(), Context(Bank(tmp_path / "bank"), tmp_path))
    assert modes
    assert not any(modes)
    assert all(torch.equal(tensor, before[name]) for name, tensor in backbone.state_dict().items())


@pytest.mark.parametrize("task", ["linear-probe", "knn"])
def test_nothing_is_selected_on_the_reported_split(task, card, home, tmp_path):
    """Other labels on the test split change the score and nothing that was chosen or predicted."""
    backbone = load_backbone(card("resnet"))
    data = load_dataset(find_dataset("digit-scenes"), "classification").limited(40)
    protocol = find_task(task)
    context = Context(Bank(tmp_path / "bank"), tmp_path)
    first = protocol.run(backbone, data, protocol.recipe(), context)
    labels = data["test"].targets
    rolled = (np.asarray(labels) + 1) % len(data.classes)
    object.__setattr__(data["test"], "targets", rolled)
    second = protocol.run(backbone, data, protocol.recipe(), context)
    assert first.chosen == second.chosen
    # The one column that is about the label: the probability that was given to it, among those that were given anyway.
    given = first.predictions.keys() - {"label_probability"}
    assert all(np.array_equal(first.predictions[name], second.predictions[name]) for name in given)
    assert not np.array_equal(labels, rolled)


def test_every_score_has_an_interval_and_a_seed(card, home):
    report = run("knn", [card("resnet")], limit=40, seeds=2)
    results = list(report.results.values())
    assert [r.seed for r in results] == [0, 1]
    assert all(s.low < s.high for r in results for name, s in r.scores.items() if name == r.task.headline)


def test_all_networks_are_trained_by_one_optimiser(card, home, monkeypatch):
    """There, detection trained its ViTs by SGD and all others by AdamW, unnoticed."""
    made = []

    def remember(original):
        def __init__(self, params, *args, **options):
            original(self, params, *args, **options)
            made.append((type(self).__name__, self.defaults["weight_decay"]))

        return __init__

    for kind in (torch.optim.SGD, torch.optim.Adam, torch.optim.AdamW):
        monkeypatch.setattr(kind, "__init__", remember(kind.__init__))
    for task in ("detection", "semantic-segmentation"):
        made.clear()
        report = run(task, [card("resnet"), card("mae-vit")], limit=8, settings={"epochs": 1})
        assert report.failed == {}
        assert {name for name, _ in made} == {"Adam", "AdamW"} or {name for name, _ in made} == {"AdamW"}
        assert len({decay for name, decay in made if name == "AdamW"}) == 1


def test_the_classifier_is_off_from_the_start(card):
    """There, taking off the classifier set the wrong attribute; here it never comes on."""
    for kind in KINDS:
        backbone = load_backbone(card(kind))
        widths = {module.out_features for module in backbone.body.modules() if isinstance(module, torch.nn.Linear)}
        assert 1000 not in widths
    with pytest.raises(NotApplicable, match="no text tower"):
        backbone.embed_text(["a zero"])
