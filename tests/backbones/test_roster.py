"""The roster: who is on it, whether its figures are right, and that one label is one set of weights."""

import json
import subprocess
import sys

import pytest
from backbench.backbones import BadInput, find_backbone, list_backbones, load_backbone, roster
from backbench.backbones.registry import library_of

# Battle of the Backbones (arXiv 2310.19909): the rows of its code, as it calls them, and the cards of those weights.
# Where its tasks load different weights under one name, all are here. Its two SSCD rows are TorchScript files from its
# authors' own disk; sscd/resnet50 is what SSCD's authors publish.
BOB = {
    "resnet50 (classification)": "timm/resnet50.a1_in1k",
    "resnet50 (detection)": "timm/resnet50.tv_in1k",
    "resnet101 (classification)": "timm/resnet101.a1h_in1k",
    "resnet101 (detection)": "timm/resnet101.tv_in1k",
    "convnext_tiny": "timm/convnext_tiny.fb_in1k",
    "convnext_small": "timm/convnext_small.fb_in1k",
    "convnext_base": "timm/convnext_base.fb_in1k",
    "convnext_base_in22k": "timm/convnext_base.fb_in22k",
    "convnext_small_in22ft1k": "timm/convnext_small.fb_in22k_ft_in1k",
    "convnext_base_in22ft1k": "timm/convnext_base.fb_in22k_ft_in1k",
    "convnext_xlarge_in22ft1k": "timm/convnext_xlarge.fb_in22k_ft_in1k",
    "swinv2_tiny_window8_256": "timm/swinv2_tiny_window8_256.ms_in1k",
    "swinv2_base_window8_256": "timm/swinv2_base_window8_256.ms_in1k",
    "swinv2_base_window12to16_192to256_22kft1k": "timm/swinv2_base_window12to16_192to256.ms_in22k_ft_in1k",
    "swinv2_base_window12to24_192to384_22kft1k": "timm/swinv2_base_window12to24_192to384.ms_in22k_ft_in1k",
    "swinv2_large_window12to16_192to256_22kft1k": "timm/swinv2_large_window12to16_192to256.ms_in22k_ft_in1k",
    "swinv2_large_window12to24_192to384_22kft1k": "timm/swinv2_large_window12to24_192to384.ms_in22k_ft_in1k",
    "vit_small_patch16_224_augreg_in1k": "timm/vit_small_patch16_224.augreg_in1k",
    "vit_small_patch16_224_augreg_in21k_ft_in1k": "timm/vit_small_patch16_224.augreg_in21k_ft_in1k",
    "vit_base_patch16_224_augreg_in1k": "timm/vit_base_patch16_224.augreg_in1k",
    "vit_base_patch16_224_augreg_in21k_ft_in1k": "timm/vit_base_patch16_224.augreg_in21k_ft_in1k",
    "vit_large_patch16_224_augreg_in21k_ft_in1k": "timm/vit_large_patch16_224.augreg_in21k_ft_in1k",
    "ViT-S IN-1k (detection)": "timm/deit_small_patch16_224.fb_in1k",
    "ViT-B IN-1k (detection)": "timm/deit_base_patch16_384.fb_in1k",
    "dino_resnet50": "dino/resnet50",
    "vit_small_patch16_224_dino": "timm/vit_small_patch16_224.dino",
    "vit_base_patch16_224_dino": "timm/vit_base_patch16_224.dino",
    "vit_small_moco": "moco-v3/vit-small",
    "vit_base_moco": "moco-v3/vit-base",
    "resnet50_moco": "moco-v3/resnet50",
    "resnet50_vicreg": "vicreg/resnet50",
    "convnext_xlarge_alpha0p75_vicreg": "vicregl/convnext-xlarge-alpha0.75",
    "vit_base_patch16_224_mae": "timm/vit_base_patch16_224.mae",
    "vit_large_patch16_224_mae": "timm/vit_large_patch16_224.mae",
    "vit_huge_patch14_224_mae": "timm/vit_huge_patch14_224.mae",
    "vit_base_patch16_224_clip_laion2b": "timm/vit_base_patch16_clip_224.laion2b",
    "vit_large_patch14_224_clip_laion2b": "timm/vit_large_patch14_clip_224.laion2b",
    "resnet50_clip": "timm/resnet50_clip.openai",
    "resnet101_clip": "timm/resnet101_clip.openai",
    "resnet50_64_clip": "timm/resnet50x64_clip.openai",
    "swin2_tiny_256_midas": "midas/swinv2-tiny-256",
    "swin2_base_384_midas": "midas/swinv2-base-384",
    "stable_diffusion_v1": "diffusers/CompVis/stable-diffusion-v1-4",
    "sam_vit_b_01ec64": "timm/samvit_base_patch16.sa1b",
    "EfficientNet-B0": "timm/efficientnet_b0.ra_in1k",
    "ResNet-18": "timm/resnet18.tv_in1k",
    "RegNetX-400MF": "timm/regnetx_004.pycls_in1k",
    "resnet50 --pretrained off": "random/resnet50",
    "resnet101 --pretrained off": "random/resnet101",
    "convnext_tiny --pretrained off": "random/convnext-tiny",
    "convnext_base --pretrained off": "random/convnext-base",
    "swinv2_tiny --pretrained off": "random/swinv2-tiny",
    "swinv2_base --pretrained off": "random/swinv2-base",
    "vit_small --pretrained off": "random/vit-small",
    "vit_base --pretrained off": "random/vit-base",
}
SAMPLE = ["mini/cnn-image-text", "timm/resnet18.tv_in1k", "timm/vit_tiny_patch16_224.augreg_in21k_ft_in1k"]
SAMPLE += ["open_clip/RN50@openai", "torchvision/alexnet@IMAGENET1K_V1"]


@pytest.fixture(scope="module")
def cards():
    return {name: find_backbone(name) for name in roster.packaged()}


@pytest.fixture(scope="module")
def entries():
    return json.loads(roster.FILE.read_text())["cards"]


@pytest.fixture(scope="module")
def rows():
    return {row["name"]: row for row in roster.rows()}


# -- Battle of the Backbones: the labels ---------------------------------------------------------------------------


def test_every_bob_row_has_a_card(cards):
    assert set(BOB.values()) <= set(cards)
    assert len(set(BOB.values())) == len(BOB)


def test_one_label_is_one_set_of_weights(cards):
    """No two cards are one backbone, and what a task is given for a name is the card and nothing beside it."""
    digests = {card.digest() for card in cards.values()}
    assert len(digests) == len(cards)
    for name in BOB.values():
        assert find_backbone(name).digest() == cards[name].digest()
        assert cards[name].name == name


def test_resnet50_a1_and_torchvision_v1_are_two_backbones(cards, rows, entries):
    a1, v1 = "timm/resnet50.a1_in1k", "timm/resnet50.tv_in1k"
    assert cards[a1].digest() != cards[v1].digest()
    assert entries[a1]["input"] != entries[v1]["input"]
    assert rows[a1]["params"] == rows[v1]["params"]
    assert find_backbone("timm/resnet50").name == a1  # a short name says which weights it became


def test_vit_augreg_in1k_is_not_in21k_ft_in1k(rows):
    for size in ("small", "base"):
        architecture = f"timm/vit_{size}_patch16_224"
        assert rows[f"{architecture}.augreg_in1k"]["data"] == "imagenet-1k"
        assert rows[f"{architecture}.augreg_in21k_ft_in1k"]["data"] == "imagenet-21k + imagenet-1k"
        short = find_backbone(architecture).name
        assert short == f"{architecture}.augreg{'2' if size == 'base' else ''}_in21k_ft_in1k"


def test_convnext_xl_in22k_ft_in1k_says_so(rows):
    assert rows["timm/convnext_xlarge.fb_in22k_ft_in1k"]["data"] == "imagenet-21k + imagenet-1k"
    assert not [n for n, row in rows.items() if "convnext_xlarge" in n and row["data"] == "imagenet-1k"]


def test_no_card_trains_from_scratch_by_default(cards, rows):
    untrained = {name for name, card in cards.items() if not card.pretrained}
    assert untrained == {name for name in cards if name.startswith("random/")}
    assert {n for n, row in rows.items() if row["method"] == "random"} == untrained | {"mini/cnn-random"}


def test_an_untrained_card_is_its_twin_without_the_weights(cards, entries):
    twin = entries["timm/convnext_tiny.fb_in1k"]
    card, entry = cards["random/convnext-tiny"], entries["random/convnext-tiny"]
    assert (entry["params"], entry["macs"], entry["input"]) == (twin["params"], twin["macs"], twin["input"])
    small = card.model_copy(update={"model_args": {"depths": [1, 1, 1, 1], "dims": [8, 16, 24, 32]}})
    assert load_backbone(small).weights_digest == load_backbone(small).weights_digest


def test_stable_diffusion_card_names_the_weights_it_loads(cards):
    [name] = [name for name in cards if "diffusion" in name]
    assert (name, cards[name].model) == (f"diffusers/{cards[name].model}", "CompVis/stable-diffusion-v1-4")
    assert cards[name].checkpoint is None
    assert set(cards[name].model_args) == {"timestep", "prompt"}


# -- the figures ---------------------------------------------------------------------------------------------------


def test_every_card_has_its_figures_and_every_figure_a_card(cards, entries):
    """Where this fails: python -m backbench.backbones.roster"""
    assert {n: c.digest() for n, c in cards.items()} == {n: e["digest"] for n, e in entries.items()}


@pytest.mark.parametrize("name", SAMPLE)
def test_figures_are_what_the_network_is(name, entries):
    from backbench.backbones.measuring import entry_of

    assert json.loads(json.dumps(entry_of(find_backbone(name)))) == entries[name]


@pytest.mark.slow
def test_all_figures_are_what_the_networks_are(cards, entries):
    from backbench.backbones.measuring import entry_of, library_names

    for name, card in cards.items():
        assert json.loads(json.dumps(entry_of(card))) == entries[name], name
    listed = json.loads(roster.FILE.read_text())["libraries"]
    assert json.loads(json.dumps(dict(library_names()))) == listed


def test_figures_from_shapes_are_those_of_a_network_with_weights(entries):
    backbone = load_backbone("mini/vit-masked")
    entry = entries["mini/vit-masked"]
    assert (entry["params"], entry["embed_dim"]) == (backbone.parameters_count, backbone.embed_dim)
    assert entry["levels"] == [[level.channels, level.stride] for level in backbone.levels]
    assert entry["input"] == json.loads(backbone.input.model_dump_json())


@pytest.mark.parametrize(
    ("name", "params", "macs"),
    [  # as their papers and timm's tables print them, classifiers of 1000 classes taken off the parameters
        ("timm/resnet50.a1_in1k", 25.557 - 2.049, 4.1),
        ("timm/vit_base_patch16_224.augreg_in1k", 86.568 - 0.769, 17.5),
        ("timm/convnext_tiny.fb_in1k", 28.589 - 0.769, 4.5),
        ("timm/swinv2_tiny_window8_256.ms_in1k", 28.348 - 0.769, 5.9),
        ("timm/efficientnet_b0.ra_in1k", 5.289 - 1.281, 0.39),
        ("timm/vit_large_patch14_dinov2.lvd142m", 304.37, 507.1),
        ("timm/vit_7b_patch16_dinov3.lvd1689m", 6716.0, 1775.1),
        ("torchvision/vgg16@IMAGENET1K_V1", 138.358 - 4.097, 15.5),
    ],
)
def test_figures_agree_with_published_ones(rows, name, params, macs):
    assert rows[name]["params"] / 1e6 == pytest.approx(params, rel=1e-3)
    assert rows[name]["macs"] / 1e9 == pytest.approx(macs, rel=0.03)


def test_what_a_row_can_know_it_knows(rows):
    for name, row in rows.items():
        assert row["paper"], name
        assert row["family"], name
        if row["source"] not in ("transformers", "diffusers"):  # their configs lie on a hub
            assert row["params"], name
            assert row["macs"], name
            assert row["input_size"], name
            assert row["text_tower"] is not None, name
    assert sum(row["method"] is not None for row in rows.values()) > 0.97 * len(rows)


def test_cards_say_only_what_their_library_does_not(cards):
    for name, card in cards.items():
        if card.source in ("timm", "open_clip", "torchvision") and card.pretrained and not card.checkpoint:
            library = library_of(card.source)
            assert library.find(card.model) == card.model, name  # in full, with the tag of its weights
            assert name == f"{card.source}/{card.model}"
            facts = library.describe(card)
            assert not (card.family and facts.family), name
            assert not (card.license and facts.license), name
            if card.source == "timm":
                assert not (card.pretraining and facts.pretraining), name


# -- listing -------------------------------------------------------------------------------------------------------


def test_listing_imports_no_library_and_no_validation():
    program = (
        "import sys; from backbench.backbones import roster\n"
        "assert len(roster.rows(libraries=True)) > 2000\n"
        "print(*{'torch', 'timm', 'transformers', 'open_clip', 'torchvision', 'numpy', 'pydantic'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""


def test_rows_are_cards_and_names_of_libraries(rows):
    assert list(rows) == sorted(list_backbones())
    every = {row["name"]: row for row in roster.rows(libraries=True)}
    assert rows.items() <= every.items()
    assert every["timm/resnet50.ra_in1k"]["method"] == "supervised"
    assert every["open_clip/ViT-B-16-plus-240@laion400m_e32"]["input_size"] == 240
    assert every["torchvision/squeezenet1_0@IMAGENET1K_V1"]["params"] is None


def test_a_card_that_was_not_measured_yet_is_listed(tmp_path, monkeypatch):
    from backbench.backbones import registry

    (tmp_path / "new.yaml").write_text("source: timm\nmodel: test_vit\npretraining: {method: supervised}\n")
    monkeypatch.setattr(roster, "CARDS", tmp_path)
    monkeypatch.setattr(registry, "CARDS", tmp_path)
    registry._cards.cache_clear()
    try:
        [row] = roster.rows()
    finally:
        registry._cards.cache_clear()
    assert (row["name"], row["source"], row["method"], row["params"]) == ("new", "timm", "supervised", None)


def test_selecting():
    rows = roster.rows()
    chosen = roster.select(rows, family="vit", method="self-supervised", data="ImageNet-1k", params="..30M")
    assert {"timm/vit_small_patch16_224.dino", "timm/vit_small_patch8_224.dino"} <= {row["name"] for row in chosen}
    assert all(row["data"] == "imagenet-1k" and row["params"] <= 30e6 for row in chosen)
    chained = roster.select(rows, data="imagenet-21k+imagenet-1k", source="timm")
    assert {row["data"] for row in chained} == {"imagenet-21k + imagenet-1k"}
    assert roster.select(rows) == rows
    assert roster.select(rows, family="mlp", method="depth") == []  # both exist, together they don't


@pytest.mark.parametrize(
    ("text", "ends"),
    [
        ("..30M", (0, 30e6)),
        ("20m..90M", (20e6, 90e6)),
        ("300M..", (300e6, float("inf"))),
        ("1.5B..7b", (1.5e9, 7e9)),
        ("..4G", (0, 4e9)),
    ],
)
def test_ranges_of_parameters(text, ends):
    assert roster.size_range(text) == ends


@pytest.mark.parametrize("text", ["30M", "..", "", "M..", "20-90M", "90M..20M", "-1M..", "..30MB"])
def test_no_ranges(text):
    with pytest.raises(BadInput, match="--params"):
        roster.size_range(text)
