"""A checkpoint's own classifier: the library's logits for every source that has one, and a clear no for the others."""

import random

import pytest
import timm
import torch
import transformers as tf
from backbench.backbones import BackboneCard, Loading, NotApplicable, load_backbone
from backbench.backbones.classifier import load_classifier
from torchvision import models

STATISTICS = {"size": 64, "mean": [0.5] * 3, "std": [0.5] * 3}
NETWORK = """
from torch import nn
def make():
    return nn.Sequential(nn.Conv2d(3, 6, 3, 2), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 4))
"""


@pytest.fixture
def load(tmp_path):
    """`load(source, model, weights)`: a backbone of these weights."""

    def call(source, model, weights=None, **card):
        if weights is not None:
            torch.save(weights, tmp_path / "weights.pth")
            card["checkpoint"] = "weights.pth"
        return load_backbone(
            BackboneCard.model_validate(
                {"name": "net", "source": source, "model": model, "input": STATISTICS, "folder": tmp_path} | card
            )
        )

    return call


def made(make, **arguments):
    with torch.random.fork_rng():
        torch.manual_seed(7)
        return make(**arguments).eval()


def same(backbone, network):
    x = torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        return torch.allclose(load_classifier(backbone)(x).embedding, network(x), atol=1e-6)


@pytest.mark.parametrize("model", ["test_resnet", "test_vit", "test_efficientnet"])
def test_of_timm(load, model):
    arguments = {"img_size": 64} if "vit" in model else {}
    network = made(timm.create_model, model_name=model, **arguments)
    assert same(load("timm", model, network.state_dict(), model_args=arguments), network)


@pytest.mark.parametrize("model", ["squeezenet1_1", "shufflenet_v2_x0_5", "googlenet"])
def test_of_torchvision(load, model):
    """SqueezeNet's classifier is no layer on an embedding; GoogLeNet's file holds classifiers half-way too."""
    network = made(getattr(models, model), **({"init_weights": False} if model == "googlenet" else {}))
    assert same(load("torchvision", model, network.state_dict()), network)


def vit(**config):
    return tf.ViTConfig(
        hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16, image_size=64, **config
    )


@pytest.mark.parametrize("classes", [7, 1001])
def test_of_transformers(load, tmp_path, classes):
    network = made(tf.ViTForImageClassification, config=vit(num_labels=classes))
    network.save_pretrained(tmp_path / "vit")
    tf.ViTImageProcessor(size={"height": 64, "width": 64}).save_pretrained(tmp_path / "vit")
    x = torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        found, want = load_classifier(load("transformers", "vit"))(x).embedding, network(x).logits
    # Of 1001 classes, as TensorFlow's networks have them, the first is none of ImageNet's.
    assert torch.allclose(found, want[:, 1:] if classes == 1001 else want, atol=1e-6)


def test_channels_in_the_order_of_the_processor(load, tmp_path):
    config = tf.MobileViTConfig(
        image_size=64, hidden_sizes=[16, 16, 16], neck_hidden_sizes=[8, 8, 8, 8, 8, 8, 16], num_labels=3
    )
    network = made(tf.MobileViTForImageClassification, config=config)
    for weights in network.parameters():  # the library's own random ones say the same of everything
        torch.nn.init.normal_(weights)
    network.save_pretrained(tmp_path / "mobilevit")
    tf.MobileViTImageProcessor(size={"shortest_edge": 64}, crop_size={"height": 64, "width": 64}).save_pretrained(
        tmp_path / "mobilevit"
    )
    x = torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        found = load_classifier(load("transformers", "mobilevit"))(x).embedding
        assert torch.allclose(found, network(x.flip(1)).logits, atol=1e-6)
        assert not torch.allclose(found, network(x).logits, atol=1e-6)


def test_of_ones_own_code(load, tmp_path):
    (tmp_path / "net.py").write_text(NETWORK)
    space = {}
    exec(NETWORK, space)
    network = made(space["make"])
    assert same(load("python", "net.py:make", network.state_dict(), head="4"), network)
    with pytest.raises(NotApplicable, match="net has no classifier: its card names none"):
        load_classifier(load("python", "net.py:make", network.state_dict()))


def test_is_loaded_and_computed_as_its_backbone(load):
    network = made(timm.create_model, model_name="test_resnet")
    backbone = load("timm", "test_resnet", network.state_dict()).load_as(Loading(channels_last=True))
    before = torch.random.get_rng_state(), random.getstate()
    classifier = load_classifier(backbone)
    assert torch.equal(before[0], torch.random.get_rng_state())
    assert before[1] == random.getstate()
    assert not classifier.training
    assert (classifier.loading, classifier.transform) == (backbone.loading, backbone.transform)
    assert (classifier.card, classifier.embed_dim, classifier.levels) == (backbone.card, 1000, ())
    assert classifier.weights_digest != backbone.weights_digest  # features of the two never share a place in the bank
    assert classifier.weights_digest == load_classifier(backbone).weights_digest


@pytest.mark.parametrize("name", ["mini/cnn-supervised", "mini/cnn-image-text"])
def test_sources_without(name):
    with pytest.raises(NotApplicable, match=f"{name} has no classifier: source mini has none"):
        load_classifier(load_backbone(name))


def test_random_weights_decide_nothing(load):
    with pytest.raises(NotApplicable, match="net has no classifier: its weights are random"):
        load_classifier(load("timm", "test_resnet", pretrained=False))


def test_a_file_without_it(load):
    bare = made(timm.create_model, model_name="test_resnet", num_classes=0).state_dict()
    with pytest.raises(NotApplicable, match=r"net has no classifier in its weights: .*weights.pth.*lacks 2 .*fc"):
        load_classifier(load("timm", "test_resnet", bare))
    of_seven = made(timm.create_model, model_name="test_resnet", num_classes=7).state_dict()
    with pytest.raises(NotApplicable, match=r"no classifier in its weights: .*\(7, .*\(1000, "):
        load_classifier(load("timm", "test_resnet", of_seven))


def test_self_supervised_weights(load, tmp_path):
    dino = {"depth": 1, "embed_dim": 32, "num_heads": 2, "img_size": 56}
    network = made(timm.create_model, model_name="vit_small_patch14_dinov2", **dino)
    size = STATISTICS | {"size": 56}
    backbone = load("timm", "vit_small_patch14_dinov2", network.state_dict(), model_args=dino, input=size)
    with pytest.raises(NotApplicable, match="net has no classifier: timm has the network without one"):
        load_classifier(backbone)
    made(tf.ViTModel, config=vit(), add_pooling_layer=False).save_pretrained(tmp_path / "bare")
    with pytest.raises(NotApplicable, match="net has no classifier: its weights are of ViTModel"):
        load_classifier(load("transformers", "bare"))
