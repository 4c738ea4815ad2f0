"""Cards: what is read back is what was written, and what is wrong is told in one line with its place."""

import json

import pytest
import yaml
from backbench.backbones.card import BackboneCard, Input, InputOverride
from backbench.backbones.errors import BadInput
from backbench.backbones.reading import digest, parse_card, read_card
from hypothesis import given
from hypothesis import strategies as st

NAMES = st.text(st.characters(codec="utf-8", exclude_categories=["C"]), min_size=1, max_size=40)
TRIPLE = st.tuples(*[st.floats(0.01, 1)] * 3)
INPUTS = st.builds(
    Input,
    size=st.integers(8, 512),
    mean=TRIPLE,
    std=TRIPLE,
    interpolation=st.sampled_from(["nearest", "bilinear", "bicubic", "lanczos"]),
    crop=st.floats(0.1, 1),
    fit=st.sampled_from(["crop", "squash"]),
)
CARDS = st.builds(
    BackboneCard,
    name=NAMES,
    source=st.sampled_from(["timm", "torchvision", "open_clip"]),
    model=NAMES,
    model_args=st.dictionaries(NAMES, st.one_of(st.integers(), st.booleans(), NAMES), max_size=3),
    pretrained=st.booleans(),
    init_seed=st.integers(0, 2**40),
    key_map=st.dictionaries(NAMES, NAMES | st.just(""), max_size=2),
    pool=st.sampled_from(["auto", "cls", "mean"]),
    license=st.none() | NAMES,
)


@given(CARDS)
def test_a_card_survives_yaml(card):
    text = yaml.safe_dump(card.model_dump(mode="json"), allow_unicode=True)
    assert parse_card(text, BackboneCard, "card.yaml") == card


@given(CARDS)
def test_identity_leaves_descriptions_out(card):
    described = card.model_copy(update={"name": "another", "license": "mit", "paper": "x", "family": "cnn"})
    assert described.digest() == card.digest()
    json.dumps(card.identity(), allow_nan=False)


@given(CARDS, st.integers(0, 100))
def test_identity_holds_what_decides_features(card, seed):
    assert card.model_copy(update={"init_seed": card.init_seed + 1 + seed}).digest() != card.digest()
    assert card.model_copy(update={"pretrained": not card.pretrained}).digest() != card.digest()


@given(st.dictionaries(NAMES, st.integers()))
def test_digest_ignores_key_order(mapping):
    assert digest(mapping) == digest(dict(reversed(mapping.items())))


@given(INPUTS, INPUTS)
def test_override_takes_only_what_is_given(own, default):
    assert InputOverride().over(default.model_dump()) == default
    assert InputOverride(**own.model_dump()).over(default.model_dump()) == own
    assert InputOverride(size=own.size).over(default.model_dump()) == default.model_copy(update={"size": own.size})


@given(st.text())
def test_any_text_is_a_card_or_one_line(text):
    said = []
    try:
        parse_card(text, BackboneCard, "card.yaml")
    except BadInput as error:
        said.append(str(error))
    assert all(line.startswith("card.yaml") and "\n" not in line for line in said)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("source: timm\nmodle: x\n", "card.yaml:2: modle: unknown key; did you mean 'model'?"),
        ("source: tim\nmodel: x\n", "card.yaml:1: source: "),
        ("model: x\n", "source: this key is required"),
        ("source: timm\nmodel: x\ninput: {sise: 3}\n", "card.yaml:3: input.sise: unknown key; did you mean 'size'?"),
        ("source: timm\nmodel: x\ninput:\n  size: big\n", "card.yaml:4: input.size: "),
        (
            "source: timm\nmodel: x\ninput: {std: [0, 1, 1]}\n",
            "card.yaml:3: input.std.0: Input should be greater than 0, got 0",
        ),
        ("source: timm\nmodel: x\nmodel: y\n", "'model' is given twice"),
        ("source: timm\nmodel: x\ncheckpoint: w.pth\n", "nobody can guess the normalisation"),
        ("source: timm\nmodel: x\nhead: fc\n", "are for `source: python`"),
        ("source: python\nmodel: x.py:f\ninput: {mean: [0, 0, 0], std: [1, 1, 1]}\n", "needs `input.size`"),
        ("source: [timm\n", "not valid YAML"),
        ("- a\n- b\n", "a card is a mapping"),
        ("!!python/object/apply:os.system [true]\n", "not valid YAML"),
    ],
)
def test_what_is_wrong_is_told_with_its_place(text, said):
    with pytest.raises(BadInput) as caught:
        parse_card(text, BackboneCard, "card.yaml")
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_files_that_cannot_be_read(tmp_path):
    with pytest.raises(BadInput, match="no such file"):
        read_card(tmp_path / "none.yaml", BackboneCard)
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(BadInput, match="cannot be read"):
        read_card(tmp_path / "binary.yaml", BackboneCard)
    (tmp_path / "huge.yaml").write_text("#" * (2 << 20))
    with pytest.raises(BadInput, match="short YAML text"):
        read_card(tmp_path / "huge.yaml", BackboneCard)


def test_a_local_file_is_named_by_its_content(tmp_path):
    def identity(content):
        (tmp_path / "w.pth").write_bytes(content)
        statistics = {"mean": [0.5] * 3, "std": [0.5] * 3}
        return BackboneCard(source="timm", model="x", checkpoint="w.pth", input=statistics, folder=tmp_path).digest()

    assert identity(b"one") != identity(b"two")
    assert identity(b"one") == identity(b"one")


def test_what_others_read_of_a_card_names_no_folder_of_this_machine(tmp_path):
    card = BackboneCard(
        name="mine",
        source="python",
        model=str(tmp_path / "net.py:make"),
        checkpoint={"path": str(tmp_path / "w.safetensors")},  # pyright: ignore[reportArgumentType]
        input={"size": 32, "mean": (0.5,) * 3, "std": (0.5,) * 3},  # pyright: ignore[reportArgumentType]
        folder=tmp_path,
    )
    said = card.public()
    assert str(tmp_path) not in json.dumps(said)
    assert (said["model"], said["checkpoint"]["path"]) == ("net.py:make", "w.safetensors")
    beside = card.model_copy(update={"model": "code/net.py:make"})
    assert beside.public()["model"] == "code/net.py:make"  # beside the card: anybody's
