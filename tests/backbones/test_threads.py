"""Several passes through one network at once give what each would give alone: the feature bank relies on it."""

from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from backbench.backbones import BackboneCard, load_backbone
from backbench.backbones.registry import find_backbone

STATS = {"mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5)}
STATEFUL = """
import torch

class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.stem, self.body = torch.nn.Conv2d(3, 8, 4, 4), torch.nn.Conv2d(8, 16, 2, 2)

    def forward(self, x):
        self.kept = self.stem(x)  # what another pass would overwrite
        print("noise")
        return self.body(self.kept).mean((2, 3)) + self.kept.mean()
"""


def python_card(folder):
    (folder / "net.py").write_text(STATEFUL)
    keys = {"source": "python", "model": "net.py:Net", "levels": ("stem", "body"), "input": {"size": 64, **STATS}}
    return BackboneCard.model_validate(keys | {"folder": folder})


CARDS = {
    "timm": lambda _: BackboneCard.model_validate(
        {"source": "timm", "model": "test_vit", "pretrained": False, "input": {"size": 64}}
    ),
    "torchvision": lambda _: BackboneCard.model_validate(
        {"source": "torchvision", "model": "squeezenet1_1", "pretrained": False, "input": {"size": 64, **STATS}}
    ),
    "python": python_card,
    "mini": lambda _: find_backbone("mini/vit-masked"),
    "mini with text": lambda _: find_backbone("mini/cnn-image-text"),
}


@pytest.mark.parametrize("source", CARDS)
def test_passes_at_once_are_passes_alone(source, tmp_path, capfd):
    backbone = load_backbone(CARDS[source](tmp_path))
    name = backbone.layer_names[-1]
    batches = [torch.randn(4, 3, 64, 64, generator=torch.Generator().manual_seed(i)) for i in range(24)]

    def features(batch):
        with torch.inference_mode():
            f = backbone(batch, maps=True, layers=[name])
        return [f.embedding, *f.maps, *(t for t in f.layers.values() if isinstance(t, torch.Tensor))]

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        alone = [features(batch) for batch in batches]
        with ThreadPoolExecutor(6) as pool:
            together = list(pool.map(features, batches))
    finally:
        torch.set_num_threads(threads)
    for one, other in zip(alone, together, strict=True):
        assert len(one) == len(other)
        assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))
    print("still stdout")
    assert "still stdout" in capfd.readouterr().out


def test_sizes_at_once_are_sizes_alone():
    """BEiT's tables of positions are resized for every pass: no pass may see another's."""
    args = {"depth": 2, "embed_dim": 48, "num_heads": 2}
    keys = {"source": "timm", "model": "beit_base_patch16_224", "pretrained": False, "model_args": args}
    backbone = load_backbone(BackboneCard.model_validate(keys | {"input": {"size": 64}}))
    sizes = [(64, 64), (96, 64), (80, 112), (64, 128)] * 6
    batches = [torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(i)) for i, size in enumerate(sizes)]

    def features(batch):
        with torch.inference_mode():
            found = backbone(batch, maps=True, layers=["blocks.1"])
        return [found.embedding, *found.maps, found.layers["blocks.1"]]

    alone = [features(batch) for batch in batches]
    with ThreadPoolExecutor(6) as pool:
        together = list(pool.map(features, batches))
    for one, other in zip(alone, together, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))
