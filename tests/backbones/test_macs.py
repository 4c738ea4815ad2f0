"""Multiply-accumulates: what the roster counted without memory, counted again on the loaded network."""

import pytest
import torch
from backbench.backbones import load_backbone
from backbench.backbones.roster import rows

MINI = {row["name"]: row["macs"] for row in rows() if row["source"] == "mini"}


@pytest.mark.parametrize("name", ["mini/cnn-supervised", "mini/vit-masked"])
@pytest.mark.parametrize("loading", [{}, {"precision": "bfloat16"}, {"channels_last": True}])
def test_they_do_not_depend_on_how_a_network_computes(name, loading):
    assert load_backbone(name, "cpu", **loading).macs == MINI[name]


def test_counting_changes_nothing():
    backbone = load_backbone("mini/vit-masked")
    images = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    before, digest, state = backbone(images).embedding, backbone.weights_digest, torch.get_rng_state()
    backbone.train()
    assert backbone.macs
    assert backbone.training
    backbone.eval()
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(backbone(images).embedding, before)
    del backbone.weights_digest  # counted anew
    assert backbone.weights_digest == digest


def test_a_network_that_cannot_be_watched_has_none(monkeypatch):
    backbone = load_backbone("mini/cnn-random")

    def fail(*args, **kwargs):
        raise RuntimeError("an operation that nobody knows")

    monkeypatch.setattr(backbone, "extract", fail)
    assert backbone.macs is None
