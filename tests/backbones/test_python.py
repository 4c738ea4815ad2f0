"""The python source: a stranger's own file, and what it may get wrong."""

import sys

import pytest
import torch
from backbench.backbones import BadInput, load_backbone
from backbench.backbones.card import BackboneCard

INPUT = {"size": 32, "mean": [0.5] * 3, "std": [0.5] * 3}
NET = """
import torch
from torch import nn
from blocks import stage
print("a greeting from the file")

class Net(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.stem = stage(3, width)
        self.top = stage(width, 2 * width)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(2 * width, 10)

    def forward(self, x):
        return self.fc(self.pool(self.top(self.stem(x))).flatten(1))

def make(width=8):
    print("a greeting from the factory")
    return Net(width)

def tokens():
    return nn.Sequential(nn.Conv2d(3, 6, 8, 8), nn.Flatten(2), Transposed())

class Transposed(nn.Module):
    def forward(self, x):
        return x.transpose(1, 2)

def nothing():
    return 3

def broken():
    return undefined_name
"""
BLOCKS = """
from torch import nn

def stage(i, o):
    return nn.Sequential(nn.Conv2d(i, o, 3, 2, 1), nn.BatchNorm2d(o), nn.ReLU())
"""


@pytest.fixture
def load(tmp_path):
    (tmp_path / "net.py").write_text(NET)
    (tmp_path / "blocks.py").write_text(BLOCKS)

    def call(factory="make", **card):
        model = factory if ":" in factory else f"net.py:{factory}"
        kept = {"name": "mine", "source": "python", "model": model, "input": INPUT, "folder": tmp_path}
        return load_backbone(BackboneCard(**(kept | card)))

    return call


def test_a_file_of_one_s_own(load, capfd):
    backbone = load(head="fc", levels=["stem", "top"], model_args={"width": 4})
    features = backbone(torch.rand(2, 3, 32, 32), maps=True)
    assert features.embedding.shape == (2, 8)
    assert [(level.channels, level.stride) for level in backbone.levels] == [(4, 2), (8, 4)]
    assert [tuple(m.shape) for m in features.maps] == [(2, 4, 16, 16), (2, 8, 8, 8)]
    out, err = capfd.readouterr()
    assert out == ""
    assert "a greeting from the factory" in err


def test_it_leaves_no_module_behind(load, tmp_path):
    before = list(sys.path)
    load(head="fc")
    assert sys.path == before
    assert "blocks" not in sys.modules
    # So another card's helper of the same name is its own.
    (tmp_path / "blocks.py").write_text(BLOCKS.replace("ReLU()", "ReLU(), nn.Tanh()"))
    assert "stem.3" in load(head="fc").layer_names


def test_tokens_need_a_pool(load):
    x = torch.rand(2, 3, 32, 32)
    with pytest.raises(BadInput, match=r"gives tokens \(2, 16, 6\); say `pool: cls` or mean"):
        load("tokens")(x)
    mean = load("tokens", pool="mean")
    assert torch.allclose(mean(x).embedding, mean.body(x).mean(1))


@pytest.mark.parametrize(
    ("card", "said"),
    [
        ({"factory": "mak"}, "there is no function 'mak'; did you mean 'make'"),
        ({"factory": "nte.py:make"}, r"no such file: .*nte\.py; did you mean 'net\.py'"),
        ({"factory": "net:make"}, r"write file\.py:function"),
        ({"factory": "nothing"}, r"returned int, not a torch\.nn\.Module"),
        ({"factory": "broken"}, r"net\.py:\d+: NameError: name 'undefined_name'"),
        ({"model_args": {"widht": 3}}, "unexpected keyword argument 'widht'"),
        ({"head": "fcc"}, "head: no module 'fcc'.*; did you mean 'fc'"),
        ({"levels": ["stemm"]}, "levels: no module 'stemm'.*; did you mean 'stem'"),
        ({"checkpoint": "w.pth"}, "no such file"),
    ],
)
def test_what_can_be_wrong(load, card, said):
    with pytest.raises(BadInput, match=said) as caught:
        load(**card)
    assert "\n" not in str(caught.value)


def test_a_level_that_is_no_map(load):
    with pytest.raises(BadInput, match=r"'fc' gives \(1, 10\); a feature map is"):
        _ = load(levels=["fc"]).levels


def test_checkpoint_and_head(load, tmp_path):
    network = load().body
    torch.save({"model": network.state_dict()}, tmp_path / "w.pth")
    with torch.no_grad():
        network.top[0].weight += 1
    torch.save({"model": network.state_dict()}, tmp_path / "w.pth")
    backbone = load(checkpoint="w.pth", head="fc")
    assert torch.equal(backbone.body.top[0].weight, network.top[0].weight)


def test_identity_follows_the_file_and_what_it_imports(load, tmp_path):
    card = load(head="fc").card
    seen = [card.digest()]
    (tmp_path / "unrelated.py").write_text("x = 1")
    assert card.digest() == seen[0]
    for name in ("net.py", "blocks.py"):
        with (tmp_path / name).open("a") as file:
            file.write("\n# a change\n")
        seen.append(card.digest())
    assert len(set(seen)) == 3
    assert card.identity()["files"].keys() == {"net.py", "blocks.py"}
