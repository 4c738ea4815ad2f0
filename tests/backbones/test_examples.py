"""The examples of the room's pages, as they stand: five lines of YAML, or a ten-line python file, are enough."""

import re
from pathlib import Path

import pytest
import timm
import torch
import yaml
from backbench.backbones import NotApplicable, load_backbone
from backbench.backbones.check import check
from safetensors.torch import save_file

ROOM = Path(__file__).parent.parent.parent / "backbones"
TEXT = (ROOM / "README.md").read_text() + (ROOM / "cards" / "README.md").read_text()
PARTS = re.split(
    r"^# (\S+\.(?:py|yaml)).*\n",
    "".join(re.findall(r"^```(?:python|yaml)\n(.*?)^```", TEXT, re.M | re.S)),
    flags=re.M,
)
FILES = dict(zip(PARTS[1::2], PARTS[2::2], strict=True))
CARDS = ["vector.yaml", "maps.yaml", "channels-last.yaml", "classifier.yaml", "tokens.yaml", "theirs.yaml"]


@pytest.fixture
def desk(tmp_path):
    """A folder with every file that the page shows."""
    for name, text in FILES.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    return tmp_path


@pytest.mark.parametrize("card", CARDS)
def test_an_example_passes_its_check(card, desk, capfd):
    points = check(desk / card)
    assert len(points) > 10
    assert [point.detail for point in points if not point.passed] == []
    assert capfd.readouterr().out == ""


def test_five_lines_of_yaml_and_ten_of_python_are_enough():
    assert all(len(FILES[name].splitlines()) <= 5 for name in CARDS)
    code = [text for name, text in FILES.items() if name.endswith(".py")]
    assert len(code) == 7
    assert all(sum(bool(line.strip()) for line in text.splitlines()) <= 10 for text in code)


def test_what_the_examples_give(desk):
    images = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    found = {card: load_backbone(desk / card) for card in CARDS}
    with torch.no_grad():
        features = {card: b(images, maps=bool(b.levels)) for card, b in found.items()}
    dims = {card: (f.embedding.shape[1], [tuple(m.shape[1:]) for m in f.maps]) for card, f in features.items()}
    assert dims == {
        "vector.yaml": (16, []),
        "maps.yaml": (32, [(16, 8, 8), (32, 4, 4)]),
        "channels-last.yaml": (32, [(32, 4, 4)]),
        "classifier.yaml": (16, [(16, 8, 8)]),
        "tokens.yaml": (16, []),
        "theirs.yaml": (8, [(8, 4, 4)]),
    }
    last = features["maps.yaml"]
    assert torch.equal(last.embedding, last.maps[-1].mean((2, 3)))
    with pytest.raises(NotApplicable, match="takes images of 64 px, not 96 x 64"):
        found["tokens.yaml"](torch.zeros(1, 3, 96, 64))


def test_somebody_else_s_weights(desk):
    card = yaml.safe_load(FILES["mine.yaml"].replace("…", "0" * 64))
    del card["checkpoint"]["sha256"]
    (desk / "mine.yaml").write_text(yaml.safe_dump(card))
    body = timm.create_model(card["model"], num_classes=0, **card["model_args"]).state_dict()
    projector = {"student.projector.0.weight": torch.zeros(3, 3)}
    save_file({f"student.{name}": tensor for name, tensor in body.items()} | projector, desk / "mine.safetensors")
    loaded = load_backbone(desk / "mine.yaml").body.state_dict()
    assert all(torch.equal(loaded[name], tensor) for name, tensor in body.items())
