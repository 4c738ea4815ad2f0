"""From names to backbones."""

import random
import subprocess
import sys

import numpy as np
import pytest
import torch
from backbench.backbones import BadInput, Unavailable, find_backbone, list_backbones, load_backbone
from backbench.backbones.card import BackboneCard

MINI = ["cnn-image-text", "cnn-random", "cnn-supervised", "vit-contrastive", "vit-masked", "vit-supervised"]
TINY = BackboneCard(name="tiny", source="timm", model="test_resnet", pretrained=False)


def test_packaged_cards_need_no_library():
    code = (
        "import sys; from backbench.backbones import find_backbone, list_backbones\n"
        "for name in list_backbones(): find_backbone(name)\n"
        "assert not {'torch', 'timm', 'transformers', 'open_clip', 'torchvision'} & set(sys.modules), 'heavy'"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_every_packaged_card_is_found_by_its_path():
    assert {f"mini/{name}" for name in MINI} <= set(list_backbones())
    for name in list_backbones():
        assert find_backbone(name).name == name


def test_a_library_name_becomes_a_card():
    card = find_backbone("timm/vit_base_patch16_384.augreg_in21k_ft_in1k")
    assert (card.family, card.pretraining.method, card.license) == ("vit", "supervised", "apache-2.0")
    assert card.pretraining.data == "imagenet-21k + imagenet-1k"
    assert find_backbone("timm/resnet50").name == "timm/resnet50.a1_in1k"  # the default tag is written out
    assert find_backbone("timm/resnet50").digest() == find_backbone("timm/resnet50.a1_in1k").digest()
    assert find_backbone("torchvision/resnet50").model == "resnet50@IMAGENET1K_V2"
    assert find_backbone("open_clip/RN50x4@openai").family == "cnn"


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("resnet18", "did you mean 'timm/resnet18'"),
        ("mini/cnn-superviced", "cnn-supervised"),
        ("timm/resnet81", "resnet18"),
        ("timm/resnet50.a1_inlk", "'resnet50.a1_in1k'"),
        ("open_clip/ViT-B-33@openai", "'ViT-B-32'"),
        ("open_clip/ViT-B-32@openia", "'openai'"),
        ("torchvision/resnet81", "'resnet18'"),
        ("torchvision/resnet50@IMAGENET1K_V3", "'IMAGENET1K_V2'"),
        ("transformers/dinov2", "organisation/name"),
        ("python/my_net", "needs a card"),
        ("tim/resnet50", "timm"),
        ("nothing-like-it-at-all", "backbench list backbones"),
        ("", "backbench list backbones"),
        ("no/such/card.yaml", "no such file"),
    ],
)
def test_unknown_names_name_the_nearest(name, said):
    with pytest.raises(BadInput) as caught:
        find_backbone(name)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_card_file_knows_its_folder_and_name(tmp_path):
    path = tmp_path / "my.net.yaml"
    path.write_text("source: timm\nmodel: test_resnet\npretrained: false\n")
    card = find_backbone(path)
    assert (card.name, card.folder) == ("my.net", tmp_path)
    path.write_text("name: other\nsource: timm\nmodel: test_resnet\n")
    assert find_backbone(str(path)).name == "other"


def test_random_weights_are_the_seed_s(tmp_path):
    one, two = load_backbone(TINY), load_backbone(TINY)
    assert one.weights_digest == two.weights_digest
    assert load_backbone(TINY.model_copy(update={"init_seed": 1})).weights_digest != one.weights_digest
    assert not one.training
    assert load_backbone(one) is one


def test_loading_leaves_the_global_random_state():
    torch.manual_seed(3), random.seed(3), np.random.seed(3)  # noqa: NPY002
    untouched = torch.rand(1).item(), random.random(), np.random.rand()  # noqa: NPY002
    torch.manual_seed(3), random.seed(3), np.random.seed(3)  # noqa: NPY002
    load_backbone(TINY)
    with pytest.raises(BadInput):
        load_backbone(TINY.model_copy(update={"model_args": {"depth": 3}}))
    assert (torch.rand(1).item(), random.random(), np.random.rand()) == untouched  # noqa: NPY002


def test_what_a_card_leaves_out_is_filled_in():
    backbone = load_backbone(TINY)
    assert backbone.card.family == "cnn"
    assert backbone.card.pretraining is None  # timm's word is about timm's weights, these are random
    assert backbone.card.digest() == TINY.digest()


def test_plugins_add_cards(tmp_path, monkeypatch):
    from backbench.backbones import registry

    (tmp_path / "lab").mkdir()
    (tmp_path / "lab" / "net.yaml").write_text("source: timm\nmodel: test_vit\npretrained: false\n")

    class Entry:
        name = "lab"

        def load(self):
            return tmp_path

    monkeypatch.setattr(registry, "entry_points", lambda group: [Entry()] if group == "backbench.backbones" else [])
    registry._cards.cache_clear()
    try:
        assert "lab/net" in list_backbones()
        assert load_backbone("lab/net").embed_dim == 64
    finally:
        registry._cards.cache_clear()


@pytest.mark.parametrize(
    "name", ["timm/test_resnet", "open_clip/ViT-B-32@laion2b_s34b_b79k", "transformers/facebook/dinov2-small"]
)
def test_weights_out_of_reach_are_told_in_one_line(name, monkeypatch, tmp_path, capfd):
    from backbench.backbones import hub
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(hub, "reachable", lambda host: False)
    with pytest.raises(Unavailable, match=r"pretrained: false") as caught:
        load_backbone(name)
    assert "\n" not in str(caught.value)
    assert constants.HF_HUB_OFFLINE is False
    assert capfd.readouterr() == ("", "")
