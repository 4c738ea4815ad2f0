"""Our backbones in mmdet's and mmseg's own models: what goes in, what is learned, training steps and an evaluation."""

import numpy as np
import pytest
import torch
from backbench.backbones import BackboneCard, BadInput, NotApplicable, load_backbone
from backbench.tasks.openmmlab.checkpoints import own_checkpoints
from backbench.tasks.openmmlab.gate import openmmlab
from torch import nn

pytest.importorskip("mmengine")

SIZE = 64
NAMES = ("mini/cnn-supervised", "mini/vit-supervised")
NARROW = {"depth": 2, "embed_dim": 48, "num_heads": 2}
KINDS = {  # random weights, as small as they come: the size of images in px, arguments
    "test_resnet": (64, {}),
    "test_convnext": (64, {}),
    "mobilenetv3_small_050": (64, {}),
    "swinv2_tiny_window8_256": (64, {"embed_dim": 24, "depths": [2, 1, 1, 1], "window_size": 4}),
    "hiera_tiny_224": (64, {"embed_dim": 24, "stages": [1, 1, 1, 1]}),
    "test_vit": (64, {}),
    "vit_base_patch16_clip_224": (64, NARROW),
    "vit_small_patch14_reg4_dinov2": (56, NARROW),
    "efficientvit_m0": (64, {}),  # strides 16, 32, 64
}
every_kind = pytest.mark.parametrize("name", [*NAMES, *KINDS])


def load(name, **input):
    if name in NAMES:
        return load_backbone(name)
    size, arguments = KINDS[name]
    says = {"source": "timm", "model": name, "pretrained": False, "model_args": arguments}
    return load_backbone(BackboneCard.model_validate(says | {"input": {"size": size} | input}))


def models():
    from backbench.tasks.openmmlab import models

    return models


def build(config):
    torch.manual_seed(0)
    model = openmmlab("mmengine.registry").MODELS.build(config)
    model.init_weights()
    return model


def light(config):
    """Cascade R-CNN with small heads and few regions."""
    for head in config["roi_head"]["bbox_head"]:
        head["fc_out_channels"] = 32
    if "mask_head" in config["roi_head"]:
        config["roi_head"]["mask_head"]["num_convs"] = 1
    for stage in config["train_cfg"]["rcnn"]:
        stage["sampler"]["num"] = 16
    config["train_cfg"]["rpn_proposal"].update(nms_pre=50, max_per_img=50)
    config["test_cfg"]["rpn"].update(nms_pre=20, max_per_img=20)
    config["test_cfg"]["rcnn"]["score_thr"] = 0.0
    return config


def picture(height, width, seed):
    return torch.from_numpy(np.random.default_rng(seed).integers(0, 256, (3, height, width), dtype=np.uint8))


def odd(size):
    """Heights and widths of two images within `size` pixels."""
    return [(size - 3, size - 17), (size // 2 + 1, size)]


def scenes(size, masks=True):
    """Two BGR images of odd sizes with two objects and with none."""
    structures = openmmlab("mmdet.structures")
    Instances = openmmlab("mmengine.structures").InstanceData
    BitmapMasks = openmmlab("mmdet.structures.mask").BitmapMasks
    inputs, samples = [], []
    for seed, (height, width, boxes) in enumerate(
        (*sides, boxes) for sides, boxes in zip(odd(size), ([[4, 5, 30, 28], [20, 30, 39, 50]], []), strict=True)
    ):
        sample = structures.DetDataSample(
            metainfo={
                "img_shape": (height, width),
                "ori_shape": (height, width),
                "scale_factor": (1.0, 1.0),
                "img_id": seed,
            }
        )
        sample.gt_instances = Instances(
            bboxes=torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4), labels=torch.arange(len(boxes))
        )
        if masks:
            shapes = np.zeros((len(boxes), height, width), np.uint8)
            for shape, (x1, y1, x2, y2) in zip(shapes, boxes, strict=True):
                shape[y1:y2, x1:x2] = 1
            sample.gt_instances.masks = BitmapMasks(shapes, height, width)
        sample.ignored_instances = Instances(bboxes=torch.zeros(0, 4), labels=torch.zeros(0, dtype=torch.long))
        inputs.append(picture(height, width, seed))
        samples.append(sample)
    return {"inputs": inputs, "data_samples": samples}


def steps(model, data, count=2):
    """The losses of some steps of training."""
    wrapper = openmmlab("mmengine.optim").OptimWrapper
    optimizer = wrapper(torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], 1e-3))
    model.train()
    return [model.train_step(data(), optimizer) for _ in range(count)]


def average_precision(found, data, folder):
    """mmdet's own COCO metric on what was found; its scores."""
    metric = openmmlab("mmdet.evaluation").CocoMetric(metric=["bbox", "segm"], outfile_prefix=str(folder / "coco"))
    metric.dataset_meta = {"classes": ("a", "b", "c")}
    rows = []
    for sample, truth in zip(found, data["data_samples"], strict=True):
        given = truth.gt_instances
        masks = openmmlab("mmdet.structures.mask").encode_mask_results(given.masks.masks.astype(bool))
        instances = [
            {"bbox": box.tolist(), "bbox_label": int(label), "mask": mask}
            for box, label, mask in zip(given.bboxes, given.labels, masks, strict=True)
        ]
        rows.append({"pred_instances": sample.pred_instances.to_dict(), "instances": instances, **truth.metainfo})
    metric.process({}, rows)
    return metric.evaluate(len(rows))


@every_kind
def test_cascade_mask_rcnn_learns_and_is_evaluated(name, tmp_path):
    backbone = load(name)
    size = backbone.input.size
    model = build(light(models().cascade_rcnn(backbone, 3, size, masks=True, frozen=False, width=16)))
    before = {key: value.clone() for key, value in backbone.state_dict().items()}
    losses = steps(model, lambda: scenes(size))
    assert {"loss_rpn_cls", "s0.loss_cls", "s2.loss_bbox", "s2.loss_mask"} <= set(losses[0])
    assert all(torch.isfinite(value).all() for loss in losses for value in loss.values())
    assert any(not torch.equal(before[key], value) for key, value in backbone.state_dict().items())
    with torch.no_grad():
        found = model.eval().val_step(scenes(size))
    for sample, (height, width) in zip(found, odd(size), strict=True):
        assert sample.pred_instances.masks.shape[1:] == (height, width)
        assert (sample.pred_instances.bboxes[:, 2] <= width).all()
    scores = average_precision(found, scenes(size), tmp_path)
    assert 0 <= scores["coco/bbox_mAP"] <= 1
    assert 0 <= scores["coco/segm_mAP"] <= 1


@every_kind
def test_upernet_learns_and_is_evaluated(name):
    backbone = load(name)
    size = backbone.input.size
    model = build(models().upernet(backbone, 4, size, frozen=False, width=16))
    before = {key: value.clone() for key, value in backbone.state_dict().items()}
    truth = {}

    def fields(training=True):
        samples = []
        for seed, (height, width) in enumerate(odd(size) if training else odd(size)[:1]):
            sample = openmmlab("mmseg.structures").SegDataSample(
                metainfo={"img_shape": (height, width), "ori_shape": (height, width), "pad_shape": (height, width)}
            )
            labels = torch.arange(height * width).reshape(1, height, width) * 4 // (height * width)
            truth[seed] = labels
            sample.gt_sem_seg = openmmlab("mmengine.structures").PixelData(data=labels)
            samples.append(sample)
        inputs = [picture(*sample.img_shape, seed) for seed, sample in enumerate(samples)]
        return {"inputs": inputs, "data_samples": samples}

    losses = steps(model, fields)
    assert {"decode.loss_ce", "aux.loss_ce"} <= set(losses[0])
    assert all(torch.isfinite(value).all() for loss in losses for value in loss.values())
    assert any(not torch.equal(before[key], value) for key, value in backbone.state_dict().items())
    with torch.no_grad():
        [found] = model.eval().val_step(fields(training=False))
    assert found.pred_sem_seg.data.shape == (1, *odd(size)[0])
    metric = openmmlab("mmseg.evaluation").IoUMetric(iou_metrics=["mIoU"])
    metric.dataset_meta = {"classes": ("a", "b", "c", "d")}
    metric.process({}, [found.to_dict()])
    scores = metric.evaluate(1)
    prediction = found.pred_sem_seg.data
    iou = [((prediction == c) & (truth[0] == c)).sum() / ((prediction == c) | (truth[0] == c)).sum() for c in range(4)]
    assert scores["mIoU"] == pytest.approx(100 * float(np.mean(iou)), abs=0.01)  # mmseg rounds to hundredths


class Killed(Exception):
    """What ends a run in the middle."""


def run(folder, killed=False, resume=False):
    """The weights after three epochs of Cascade Mask R-CNN on mmengine's Runner; `killed`: in the second."""
    from backbench.tasks.openmmlab.hooks import SeedEachEpoch

    class Kill(openmmlab("mmengine.hooks").Hook):
        def after_train_iter(self, runner, **_):
            if killed and runner.epoch == 1:
                raise Killed

    config = models().cascade_rcnn(load_backbone(NAMES[1]), 3, SIZE, masks=True, frozen=False, width=16)
    images = scenes(SIZE)
    rows = [{name: values[i] for name, values in images.items()} for i in range(2)]
    sampler = {"type": "DefaultSampler", "shuffle": True}
    data = {"dataset": rows, "batch_size": 1, "num_workers": 0, "collate_fn": {"type": "pseudo_collate"}}
    runner = openmmlab("mmengine.runner").Runner(
        model=build(light(config)),
        work_dir=str(folder),
        default_scope="mmdet",
        train_dataloader=data | {"sampler": sampler},
        train_cfg={"by_epoch": True, "max_epochs": 3},
        optim_wrapper={"optimizer": {"type": "AdamW", "lr": 1e-3}},
        param_scheduler={"type": "CosineAnnealingLR", "by_epoch": False, "begin": 0, "end": 6},
        custom_hooks=[SeedEachEpoch(0), Kill()],
        randomness={"seed": 0},  # of the order of images
        resume=resume,
        log_level="ERROR",
        experiment_name=f"{folder.name}-{killed}-{resume}",
    )
    return runner.train().state_dict()


def test_a_detector_killed_and_resumed_ends_as_an_undisturbed_one(tmp_path):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    expected = run(whole)
    with pytest.raises(Killed):
        run(killed, killed=True)
    with own_checkpoints(killed):
        found = run(killed, resume=True)
    assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_a_frozen_backbone_stays_as_it_was():
    backbone = load_backbone(NAMES[0])
    before = backbone.weights_digest
    model = build(light(models().cascade_rcnn(backbone, 3, SIZE, masks=False, frozen=True, width=16)))
    steps(model, lambda: scenes(SIZE, masks=False))
    assert model.backbone.network is backbone
    assert backbone.weights_digest == before  # BatchNorm's statistics too
    assert not any(module.training for module in backbone.modules())
    assert model.neck.training


@pytest.mark.parametrize(("norm_eval", "moves"), [(True, False), (False, True)])
def test_norm_eval_keeps_the_statistics_and_trains_the_rest(norm_eval, moves):
    from backbench.tasks.openmmlab.backbone import FeatureMaps

    module = FeatureMaps(NAMES[0], norm_eval=norm_eval).train()
    norms = [m for m in module.modules() if isinstance(m, nn.BatchNorm2d)]
    before = [m.running_mean.clone() for m in norms]
    module(torch.randn(2, 3, SIZE, SIZE))[-1].sum().backward()
    assert any(not torch.equal(m.running_mean, b) for m, b in zip(norms, before, strict=True)) is moves
    assert any(p.grad is not None for p in module.parameters())
    assert module.training


def test_pixels_go_in_as_the_card_says():
    """An image as OpenCV reads it, BGR, comes out as the backbone's own transform makes it of the RGB one."""
    backbone = load("test_resnet", mean=[0.5, 0.4, 0.3], std=[0.2, 0.3, 0.4])
    image = picture(SIZE, SIZE, 0)
    expected = backbone.transform.normalise(image.flip(0))
    for config in (
        models().cascade_rcnn(backbone, 3, SIZE, masks=True, frozen=True, width=16),
        models().upernet(backbone, 3, SIZE, frozen=True, width=16),
    ):
        preprocessor = openmmlab("mmengine.registry").MODELS.build(
            {"_scope_": config["_scope_"], **config["data_preprocessor"]}
        )
        samples = [openmmlab("mmengine.structures").BaseDataElement()]
        found = preprocessor({"inputs": [image], "data_samples": samples})["inputs"]
        torch.testing.assert_close(found[0], expected, atol=1e-5, rtol=1e-5)


def test_necks_fit_the_maps():
    """mmdet's FPN where the strides are those it is made for, ours where they are not; strides 4 to 64 come out."""
    ordinary, plain = (models().cascade_rcnn(load_backbone(n), 3, 96, masks=True, frozen=True, width=16) for n in NAMES)
    assert ordinary["neck"]["type"] == "FPN"
    assert plain["neck"]["type"] == "backbench.Pyramid"
    for config in (ordinary, plain):
        neck = openmmlab("mmengine.registry").MODELS.build({"_scope_": "mmdet", **config["neck"]})
        body = openmmlab("mmengine.registry").MODELS.build(config["backbone"])
        maps = neck(body(torch.zeros(1, 3, 96, 96)))
        assert [m.shape for m in maps] == [(1, 16, side, side) for side in (24, 12, 6, 3, 2)]


def test_a_pyramid_refuses_images_of_another_size():
    config = models().cascade_rcnn(load_backbone(NAMES[1]), 3, SIZE, masks=False, frozen=True, width=16)
    detector = build(light(config)).eval()
    with pytest.raises(BadInput, match="padded to 64 x 64"), torch.no_grad():
        detector(torch.zeros(1, 3, 2 * SIZE, 2 * SIZE), mode="tensor")


def test_a_backbone_by_name_is_loaded_and_its_weights_are_not_initialised():
    from backbench.tasks.openmmlab.backbone import register

    register()
    MODELS = openmmlab("mmdet.registry").MODELS
    module = MODELS.build({"type": "backbench.Backbone", "backbone": NAMES[1], "levels": [0]})
    assert module.network.weights_digest == load_backbone(NAMES[1]).weights_digest
    model = build(models().upernet(module.network, 4, SIZE, frozen=True, width=16))
    assert model.backbone.network.weights_digest == load_backbone(NAMES[1]).weights_digest


def test_a_backbone_without_maps_is_not_applicable(make_backbone):
    from backbench.backbones import Features
    from backbench.tasks.openmmlab.backbone import FeatureMaps

    class Flat(make_backbone):
        def extract(self, images, **asked):
            return Features(embedding=super().extract(images, **asked).embedding)

    with pytest.raises(NotApplicable, match="tiny has no feature maps"):
        FeatureMaps(Flat())
