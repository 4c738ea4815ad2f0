"""Our backbones in mmdet's and mmseg's own configs: what goes in, what is learned, what the recipe decides."""

from pathlib import Path

import numpy as np
import pytest
import torch
from backbench.backbones import BackboneCard, BadInput, NotApplicable, load_backbone
from backbench.tasks import find_task
from backbench.tasks.openmmlab.gate import openmmlab
from torch import nn

pytest.importorskip("mmengine")

SIZE = 64
CNN, VIT = "mini/cnn-supervised", "mini/vit-supervised"
COCO = {"width": 256, "box_width": 1024, "mask_width": 256, "mask_layers": 4, "cells": 8, "box_cells": 7} | {
    "mask_cells": 14,
    "proposals": 1000,
    "samples": 512,
    "anchor_samples": 256,
}


def detector(backbone, size=SIZE, masks=True, **settings):
    from backbench.tasks.openmmlab.models import detector

    small = {"width": 16, "box_width": 16, "mask_width": 16, "mask_layers": 1, "trainable": "full"}
    recipe = find_task("detection").recipe({"engine": "mmdet"} | small | settings)
    return detector(backbone, 3, size, recipe, masks=masks)


def segmenter(backbone, size=SIZE, **settings):
    from backbench.tasks.openmmlab.models import segmenter

    recipe = find_task("semantic-segmentation").recipe({"engine": "mmseg", "width": 16, "trainable": "full"} | settings)
    return segmenter(backbone, 4, size, recipe)


def build(config):
    from backbench.tasks.openmmlab.runner import nothing_left_behind

    torch.manual_seed(0)
    with nothing_left_behind():
        model = openmmlab("mmengine.registry").MODELS.build(config)
        model.init_weights()
    return model


def base(package, name):
    folder = Path(openmmlab(package).__file__).parent / ".mim" / "configs" / "_base_" / "models"
    return openmmlab("mmengine.config").Config.fromfile(folder / f"{name}.py").model


@pytest.mark.parametrize(
    ("settings", "masks", "name"),
    [
        ({}, True, "cascade-mask-rcnn_r50_fpn"),
        ({}, False, "cascade-rcnn_r50_fpn"),
        ({"detector": "faster-rcnn"}, False, "faster-rcnn_r50_fpn"),
        ({"detector": "faster-rcnn"}, True, "mask-rcnn_r50_fpn"),
        ({"detector": "retinanet"}, False, "retinanet_r50_fpn"),
    ],
)
def test_at_the_sizes_of_coco_a_detector_is_mmdets_own(settings, masks, name):
    ours = detector(load_backbone(CNN), masks=masks, **COCO, **settings).to_dict()
    theirs = base("mmdet", name).to_dict()
    for heads in (ours, theirs):
        for part in ("backbone", "data_preprocessor", "_scope_"):
            heads.pop(part, None)
        heads["neck"].pop("in_channels")
        for head in _with_classes(heads):
            head.pop("num_classes")
    for extractor in ("bbox_roi_extractor", "mask_roi_extractor"):
        if extractor in theirs.get("roi_head", {}):
            theirs["roi_head"][extractor]["finest_scale"] = 56  # what it is where it is not said
    assert ours == theirs


def test_the_box_heads_of_battle_of_the_backbones_are_those_of_mmdets_convnext():
    """Four convolutions and one fully connected layer, boxes by class, generalised IoU; but GroupNorm for SyncBN."""
    ours = detector(load_backbone(CNN), **COCO, box_layers=4, box_loss="giou").roi_head.bbox_head
    configs = Path(openmmlab("mmdet").__file__).parent / ".mim" / "configs" / "convnext"
    file = configs / "cascade-mask-rcnn_convnext-t-p4-w7_fpn_4conv1fc-giou_amp-ms-crop-3x_coco.py"
    read = openmmlab("mmengine.config").Config.fromfile
    theirs = read(file, import_custom_modules=False).model.roi_head.bbox_head
    for one, other in zip(ours, theirs, strict=True):
        assert one.pop("norm_cfg") == {"type": "GN", "num_groups": 8}
        assert other.pop("norm_cfg")["type"] == "SyncBN"
        assert (one.pop("num_classes"), other.pop("num_classes")) == (3, 80)
        assert one.to_dict() == other.to_dict()


def test_a_detector_with_the_other_box_head_learns():
    model = build(detector(load_backbone(CNN), masks=False, box_layers=2, box_loss="giou", samples=16, proposals=20))
    sample = openmmlab("mmdet.structures").DetDataSample(
        metainfo={"img_shape": (SIZE, SIZE), "pad_shape": (SIZE, SIZE)}
    )
    sample.gt_instances = openmmlab("mmengine.structures").InstanceData(
        bboxes=torch.tensor([[4.0, 4, 40, 40]]), labels=torch.tensor([1])
    )
    losses = model.train()(torch.randn(1, 3, SIZE, SIZE), [sample], mode="loss")
    assert {"s0.loss_bbox", "s2.loss_bbox"} <= set(losses)
    losses["s2.loss_bbox"].backward()
    assert model.roi_head.bbox_head[2].shared_convs[0].conv.weight.grad.abs().sum() > 0


def _with_classes(config):
    heads = config.get("roi_head", config)
    boxes = heads["bbox_head"]
    return [*(boxes if isinstance(boxes, list) else [boxes]), *([heads["mask_head"]] if "mask_head" in heads else [])]


def test_a_segmenter_is_mmsegs_own():
    ours, theirs = segmenter(load_backbone(CNN), width=512), base("mmseg", "upernet_r50")
    for head, weight in (("decode_head", 1.0), ("auxiliary_head", 0.4)):
        changed = {"in_channels", "num_classes", "norm_cfg", "loss_decode"}
        kept = [{key: value for key, value in config[head].items() if key not in changed} for config in (ours, theirs)]
        assert kept[0] == kept[1]
        assert ours[head].loss_decode == theirs[head].loss_decode | {"avg_non_ignore": True, "loss_weight": weight}


def test_the_padding_of_a_picture_weighs_nothing():
    config = segmenter(load_backbone(VIT), head="fcn")
    head = build(config).decode_head
    scores, labels = torch.randn(1, 4, 8, 8), torch.full((1, 8, 8), 255)
    labels[:, :2] = 1
    sample = openmmlab("mmseg.structures").SegDataSample()
    sample.gt_sem_seg = openmmlab("mmengine.structures").PixelData(data=labels)
    found = head.loss_by_feat(scores, [sample])["loss_ce"]
    torch.testing.assert_close(found, nn.functional.cross_entropy(scores, labels, ignore_index=255))


def test_a_frozen_backbone_stays_as_it_was():
    model = build(detector(load_backbone(CNN), masks=False, trainable="frozen")).train()
    before = {name: tensor.clone() for name, tensor in model.backbone.state_dict().items()}
    maps = model.extract_feat(torch.randn(2, 3, SIZE, SIZE))
    sum(m.sum() for m in maps).backward()
    assert all(torch.equal(before[name], tensor) for name, tensor in model.backbone.state_dict().items())
    assert not any(module.training for module in model.backbone.modules())
    assert not any(p.requires_grad for p in model.backbone.parameters())
    assert all(p.grad is not None for p in model.neck.parameters())


def test_only_the_last_blocks_learn():
    network = build(detector(load_backbone(VIT), masks=False, trainable="last-1")).train().backbone.network
    blocks = network.blocks
    learning = {name for name, p in network.body.named_parameters() if p.requires_grad}
    assert any(name.startswith(blocks[-1]) for name in learning)
    assert not any(name.startswith(block) for name in learning for block in blocks[:-1])


def test_a_plain_vit_attends_in_windows():
    backbone, images = load_backbone(VIT), torch.randn(1, 3, SIZE, SIZE)
    everywhere, within, wide = (
        build(detector(backbone, masks=False, window=window)).eval().backbone(images)[0] for window in (None, 2, 99)
    )
    assert not torch.allclose(within, everywhere)
    assert torch.equal(wide, everywhere)


@pytest.mark.parametrize(("norm_eval", "moves"), [(True, False), (False, True)])
def test_norm_eval_keeps_the_statistics_and_trains_the_rest(norm_eval, moves):
    from backbench.tasks.openmmlab.backbone import FeatureMaps

    module = FeatureMaps(CNN, norm_eval=norm_eval).train()
    norms = [m for m in module.modules() if isinstance(m, nn.BatchNorm2d)]
    before = [m.running_mean.clone() for m in norms]
    module(torch.randn(2, 3, SIZE, SIZE))[-1].sum().backward()
    assert any(not torch.equal(m.running_mean, b) for m, b in zip(norms, before, strict=True)) is moves
    assert any(p.grad is not None for p in module.parameters())
    assert module.training


def test_pixels_go_in_as_the_card_says():
    """An RGB image comes out as the backbone's own transform makes it; padding is the mean colour."""
    says = {"source": "timm", "model": "test_resnet", "pretrained": False}
    input = {"size": SIZE, "mean": [0.5, 0.4, 0.3], "std": [0.2, 0.3, 0.4]}
    backbone = load_backbone(BackboneCard.model_validate(says | {"input": input}))
    image = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (3, SIZE, SIZE - 10), dtype=np.uint8))
    expected = nn.functional.pad(backbone.transform.normalise(image), (0, 10))
    for config in (detector(backbone), segmenter(backbone)):
        preprocessor = openmmlab("mmengine.registry").MODELS.build(
            {"_scope_": config["_scope_"], **config["data_preprocessor"]}
        )
        sample = openmmlab("mmengine.structures").BaseDataElement(metainfo={"img_shape": (SIZE, SIZE - 10)})
        found = preprocessor({"inputs": [image], "data_samples": [sample]})["inputs"]
        torch.testing.assert_close(found[0], expected, atol=1e-5, rtol=1e-5)


def test_necks_fit_the_maps():
    """mmdet's FPN where the strides are those it is made for, ours where they are not; strides 4 to 64 come out."""
    ordinary, plain = (detector(load_backbone(name), 96) for name in (CNN, VIT))
    assert ordinary["neck"]["type"] == "FPN"
    assert plain["neck"]["type"] == "backbench.Pyramid"
    for config in (ordinary, plain):
        neck = openmmlab("mmengine.registry").MODELS.build({"_scope_": "mmdet", **config["neck"]})
        body = openmmlab("mmengine.registry").MODELS.build(config["backbone"])
        maps = neck(body(torch.zeros(1, 3, 96, 96)))
        assert [m.shape for m in maps] == [(1, 16, side, side) for side in (24, 12, 6, 3, 2)]


def test_a_pyramid_refuses_images_of_another_size():
    model = build(detector(load_backbone(VIT), masks=False)).eval()
    with pytest.raises(BadInput, match="padded to 64 x 64"), torch.no_grad():
        model(torch.zeros(1, 3, 2 * SIZE, 2 * SIZE), mode="tensor")


def test_a_backbone_by_name_is_loaded_and_its_weights_are_not_initialised():
    from backbench.tasks.openmmlab.backbone import register

    register()
    MODELS = openmmlab("mmdet.registry").MODELS
    module = MODELS.build({"type": "backbench.Backbone", "backbone": VIT, "levels": [0]})
    assert module.network.weights_digest == load_backbone(VIT).weights_digest
    model = build(segmenter(module.network))
    assert model.backbone.network.weights_digest == load_backbone(VIT).weights_digest


def test_a_backbone_without_maps_is_not_applicable(make_backbone):
    from backbench.backbones import Features
    from backbench.tasks.openmmlab.backbone import FeatureMaps

    class Flat(make_backbone):
        def extract(self, images, **asked):
            return Features(embedding=super().extract(images, **asked).embedding)

    with pytest.raises(NotApplicable, match="tiny has no feature maps"):
        FeatureMaps(Flat())
