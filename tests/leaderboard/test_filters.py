"""Narrowing a board: what is kept, ranked anew among itself, and what is said of a slip."""

import pytest
from backbench.backbones import BadInput
from backbench.leaderboard import Board, Result, headline_columns
from backbench.leaderboard.filters import architecture, narrowed
from backbench.leaderboard.result import Identity


def names(board):
    return {row.backbone for row in board.rows}


def cards(make, **facts):
    """A result of `mini/NAME` for every keyword, with the card given there, in two tasks."""
    found = []
    for i, (name, card) in enumerate(facts.items()):
        for task in ("knn", "retrieval"):
            content = make(f"mini/{name}", task, 40.0 + 3 * i)
            content["backbone"] |= {"card": card, "parameters": 10**6 * (i + 1)}
            found.append(Result.of(**content))
    return Board.of(found, headline_columns(found), "some")


@pytest.fixture
def mixed(content):
    def card(model, source, data, method="supervised"):
        return {"source": source, "model": model, "pretraining": {"method": method, "data": data}}

    return cards(
        content,
        a=card("resnet50.a1_in1k", "timm", "imagenet-1k"),
        b=card("resnet50.fb_swsl", "timm", "ig-1b + imagenet-1k"),
        c=card("resnet50", "timm", "imagenet-1k", "self-supervised"),
        d=card("vit_b.in21k", "timm", "imagenet-21k"),
        e=card("ViT-B-32@openai", "open_clip", "wit-400m"),
        f=card("v1.5", "diffusers", "secret"),
    )


def test_of_one_family_ranked_among_themselves(board, gauntlet):
    found = narrowed(board, ["family=cnn"])
    assert names(found) == {name for name in names(board) if "cnn" in name}
    own = [r for r in gauntlet if "cnn" in r.backbone.name]
    alone = Board.of(own, board.columns, board.title)
    assert [(r.backbone, r.standing, r.cells) for r in found.rows] == [
        (r.backbone, r.standing, r.cells) for r in alone.rows
    ]
    assert [row.standing.rank for row in found.rows] == [1, 2, 3]
    assert found.title == board.title


def test_several_conditions_must_hold_and_of_one_key_any(board):
    assert names(narrowed(board, ["family=cnn", "method=supervised"])) == {"mini/cnn-supervised"}
    both = narrowed(board, ["method=supervised", "method=Vision-Language"])
    assert names(both) == {"mini/cnn-supervised", "mini/vit-supervised", "mini/cnn-image-text"}
    assert names(narrowed(board, ["license=Apache-2.0"])) == names(board)
    assert narrowed(board) is board


def test_ranges_of_sizes(board, mixed):
    assert names(narrowed(board, ["params=..600k"])) == {"mini/cnn-supervised", "mini/cnn-random"}
    assert names(narrowed(board, ["params=..600k", "params=900K.."])) == {
        "mini/cnn-supervised",
        "mini/cnn-random",
        "mini/cnn-image-text",
    }
    assert names(narrowed(mixed, ["images=..2M"])) == {"mini/a", "mini/c"}
    assert names(narrowed(mixed, ["images=100M.."])) == {"mini/b", "mini/e"}
    with pytest.raises(BadInput, match=r"none of the 6 backbones on this board is so: macs=1G\.\."):
        narrowed(board, ["macs=1G.."])


def test_the_same_as_one_of_them(mixed):
    assert names(narrowed(mixed, same="architecture", like="mini/c")) == {"mini/a", "mini/b", "mini/c"}
    assert names(narrowed(mixed, same="data", like="mini/a")) == {"mini/a", "mini/c"}
    assert names(narrowed(mixed, same="method", like="mini/c")) == {"mini/c"}
    assert names(narrowed(mixed, same="images", like="mini/e")) == {"mini/e"}
    assert names(narrowed(mixed, ["method=supervised"], "architecture", "mini/c")) == {"mini/a", "mini/b"}
    with pytest.raises(BadInput, match="mini/f: its card does not say its images"):
        narrowed(mixed, same="images", like="mini/f")


def test_trust_by_both_of_its_names(gauntlet):
    for trust in ("reported", "rescored"):
        results = [r.model_copy(update={"trust": trust}) if "cnn" in r.backbone.name else r for r in gauntlet]
        board = Board.of(results, headline_columns(results, unranked=["zero-shot"]))
        expected = {name for name in names(board) if trust == "reported" or "cnn" not in name}
        assert names(narrowed(board, ["trust=unverified"])) == names(narrowed(board, ["trust=reported"])) == expected
    with pytest.raises(BadInput, match="none of the 6"):
        narrowed(board, ["trust=contested"])


def test_columns_that_nobody_has_are_left_out(board):
    assert "zero-shot" in {c.key for c in board.columns}
    assert "zero-shot" not in {c.key for c in narrowed(board, ["family=vit"]).columns}


def test_a_narrowed_board_is_narrowed_further(board):
    once = narrowed(board, ["family=cnn"])
    assert names(narrowed(once, ["params=..600k"])) == {"mini/cnn-supervised", "mini/cnn-random"}
    assert names(narrowed(once.only("retrieval"), ["method=random"])) == {"mini/cnn-random"}
    assert names(once.only("retrieval")) == names(once)


def test_a_published_board_too(published):
    found = narrowed(published, ["params=..4M"])
    assert names(found) == {f"timm/net{i}.tag" for i in range(4)}
    assert found.source == "a-table"


@pytest.mark.parametrize(
    ("where", "same", "like", "said"),
    [
        (["family"], None, None, "--where family: write KEY=VALUE"),
        (["family="], None, None, "--where family=: write KEY=VALUE"),
        (["famly=vit"], None, None, r"no key 'famly'.*family"),
        (["family=vti"], None, None, r"no family 'vti'.*vit"),
        (["params=30M"], None, None, "--where params=30M: write a range"),
        (["trust=repoduced"], None, None, r"no trust 'repoduced'.*reproduced"),
        (
            ["family=cnn", "method=self-supervised"],
            None,
            None,
            "none of the 6 backbones on this board is so: family=cnn",
        ),
        ([], "architecture", None, "--same and --as go together"),
        ([], None, "mini/cnn-random", "--same and --as go together"),
        ([], "licence", "mini/cnn-random", "no key 'licence'"),
        ([], "data", "mini/cnn-randon", r"no backbone on this board 'mini/cnn-randon'.*mini/cnn-random"),
    ],
)
def test_slips_are_named(board, where, same, like, said):
    with pytest.raises(BadInput, match=said):
        narrowed(board, where, same, like)


@pytest.mark.parametrize(
    ("source", "model", "expected"),
    [
        ("timm", "vit_base_patch16_224.mae", "vit_base_patch16_224"),
        ("open_clip", "ViT-B-32@laion2b_s34b_b79k", "ViT-B-32"),
        ("torchvision", "resnet50@IMAGENET1K_V2", "resnet50"),
        ("diffusers", "CompVis/stable-diffusion-v1.5", "CompVis/stable-diffusion-v1.5"),
        ("timm", None, None),
    ],
)
def test_architecture_is_the_model_without_the_name_of_its_weights(source, model, expected):
    assert architecture(Identity(name="a", card={"source": source, "model": model})) == expected
