"""What a stranger's module may give back: maps in any wrapping and arrangement, tokens, and how they are embedded."""

import pytest
import torch
from backbench.backbones import BadInput, NotApplicable, load_backbone
from backbench.backbones.card import BackboneCard

NETS = """
from collections import OrderedDict
from torch import nn, zeros, cat

class Net(nn.Module):
    def __init__(self, fine=6, coarse=12):
        super().__init__()
        self.fine, self.coarse = nn.Conv2d(3, fine, 4, 4), nn.Conv2d(fine, coarse, 2, 2)
        self.unused = nn.Identity()

    def maps(self, x):
        fine = self.fine(x)
        return fine, self.coarse(fine)

class List(Net):
    def forward(self, x):
        return list(self.maps(x))

class CoarseFirst(Net):
    def forward(self, x):
        fine, coarse = self.maps(x)
        return coarse, fine

class Dict(Net):
    def forward(self, x):
        fine, coarse = self.maps(x)
        return {"vector": fine.mean((2, 3)), "coarse": coarse, "fine": fine}

class Last(Net):
    def forward(self, x):
        return self.maps(x)[1].permute(0, 2, 3, 1)

class LastInAList(Net):
    def forward(self, x):
        return [m.permute(0, 2, 3, 1) for m in self.maps(x)]

class LastInside(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = Last()

    def forward(self, x):
        return self.net(x).mean((1, 2))

class OfOneSize(Last):
    def forward(self, x):
        if x.shape[-1] != x.shape[-2]:
            raise ValueError("only squares")
        return super().forward(x)

class Tokens(nn.Module):
    def __init__(self, prefix=1):
        super().__init__()
        self.patches, self.cls = nn.Conv2d(3, 5, 8, 8), nn.Parameter(zeros(1, prefix, 5) + 9)
        self.norm = nn.LayerNorm(5)

    def forward(self, x):
        return self.norm(cat([self.cls.expand(len(x), -1, -1), self.patches(x).flatten(2).mT], 1))

class FirstToken(Tokens):
    def forward(self, x):
        return super().forward(x)[:, 0]

class Nothing(nn.Module):
    def forward(self, x):
        return None

class Video(nn.Module):
    def forward(self, x):
        return x[:, :, None]

network = Net()
network.forward = lambda x: network.maps(x)[1].mean((2, 3))
"""


@pytest.fixture(scope="module")
def load(tmp_path_factory):
    folder = tmp_path_factory.mktemp("nets")
    (folder / "nets.py").write_text(NETS)

    def call(factory, size=32, **card):
        kept = {"name": "net", "source": "python", "model": f"nets.py:{factory}", "folder": folder}
        return load_backbone(BackboneCard(**kept, input={"size": size, "mean": [0.5] * 3, "std": [0.5] * 3}, **card))

    return call


def run(backbone, height=32, width=32):
    images = torch.randn(2, 3, height, width, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        return images, backbone(images, maps=bool(backbone.levels))


@pytest.mark.parametrize("factory", ["List", "CoarseFirst", "LastInAList"])
def test_maps_in_a_list_come_fine_to_coarse_and_channels_first(load, factory):
    backbone = load(factory)
    assert [(level.channels, level.stride) for level in backbone.levels] == [(6, 4), (12, 8)]
    images, features = run(backbone, 32, 64)
    fine, coarse = backbone.body.maps(images)
    assert all(torch.equal(a, b) for a, b in zip(features.maps, (fine, coarse), strict=True))
    assert torch.allclose(features.embedding, coarse.mean((2, 3)))


def test_of_a_dict_the_card_names_the_maps(load):
    with pytest.raises(
        BadInput, match=r"nets\.py:Dict\['vector'\] gives a tensor \(1, 6\).*name those that are in `lev"
    ):
        load("Dict")
    backbone = load("Dict", levels=["coarse", "fine"])
    assert [level.stride for level in backbone.levels] == [4, 8]
    with pytest.raises(BadInput, match="there is no level 'corse'; did you mean 'coarse'"):
        load("Dict", levels=["corse"])


def test_a_key_of_the_output_goes_before_a_module_of_that_name(load):
    # `coarse` is both; `unused` is a module that no image passes.
    assert load("Dict", levels=["coarse"]).levels[0].channels == 12
    assert [level.channels for level in load("List", levels=["fine"]).levels] == [6]
    with pytest.raises(BadInput, match="module 'unused' does not run in a pass"):
        load("List", levels=["fine", "unused"])


def test_channels_last_is_told_by_shape(load):
    backbone = load("Last")
    images, features = run(backbone, 64, 32)
    assert features.maps[0].shape == (2, 12, 8, 4)
    assert torch.equal(features.maps[0], backbone.body.maps(images)[1])
    inside = load("LastInside", levels=["net"])
    assert run(inside)[1].maps[0].shape == (2, 12, 4, 4)


def test_as_many_channels_as_places_is_told_by_a_second_size_or_by_the_card(load):
    square = {"model_args": {"coarse": 4}}  # (1, 4, 4, 4) of an image of 32 px
    for factory in ("Last", "List"):
        backbone = load(factory, **square)
        images, features = run(backbone, 32, 64)
        assert torch.equal(features.maps[-1], backbone.body.maps(images)[1])
    with pytest.raises(BadInput, match=r"\(1, 4, 4, 4\): are its channels first or last\? Say `layout: NCHW` or"):
        load("OfOneSize", **square)
    backbone = load("OfOneSize", **square, layout="NHWC")
    images, features = run(backbone)
    assert torch.equal(features.maps[-1], backbone.body.maps(images)[1])


@pytest.mark.parametrize("prefix", [0, 1, 5])
def test_tokens_are_pooled_without_what_stands_before_the_patches(load, prefix):
    args = {"model_args": {"prefix": prefix}}
    mean = load("Tokens", pool="mean", **args)
    images, features = run(mean)
    tokens = mean.body(images)
    assert torch.allclose(features.embedding, tokens[:, prefix:].mean(1))
    if prefix:
        assert torch.equal(run(load("Tokens", pool="cls", **args))[1].embedding, tokens[:, 0])
        assert run(load("Tokens", pool="cls+mean", **args))[1].embedding.shape == (2, 10)
    else:
        with pytest.raises(BadInput, match="needs a class token and this network has none"):
            load("Tokens", pool="cls", **args)


def test_tokens_of_a_named_module_are_a_map_at_any_size(load):
    backbone = load("FirstToken", levels=["norm"])
    assert [(level.channels, level.stride) for level in backbone.levels] == [(5, 8)]
    images, features = run(backbone, 48, 64)
    with torch.no_grad():
        want = backbone.body.norm(backbone.body.patches(images).permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
    assert torch.allclose(features.maps[0], want, atol=1e-6)


def test_a_size_that_the_module_refuses_is_not_applicable_whatever_it_raises(load):
    with pytest.raises(NotApplicable, match=r"takes images of 32 px, not 32 x 64: .*nets\.py:\d+: ValueError: only sq"):
        run(load("OfOneSize"), 32, 64)


@pytest.mark.parametrize(
    ("factory", "card", "said"),
    [
        ("Nothing", {}, "gives NoneType; an embedding is a tensor"),
        ("Video", {}, r"gives shape \(1, 3, 1, 32, 32\); an embedding is a tensor"),
        ("List", {"pool": "cls"}, "pool: 'cls' is for tokens"),
        ("FirstToken", {"pool": "cls"}, "pool: 'cls' is for tokens"),
        ("Tokens", {"levels": ["patches", "cls"]}, "there is no level 'cls'"),
    ],
)
def test_what_cannot_be_read_is_told_when_it_is_loaded(load, factory, card, said):
    with pytest.raises(BadInput, match=said) as caught:
        load(factory, **card)
    assert "\n" not in str(caught.value)


def test_a_module_that_is_there_already_will_do(load):
    assert load("network").embed_dim == 12
