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
    with pytest.raises(BadInput, match=r"gives tokens \(1, 16, 6\); say `pool: cls` or mean"):
        load("tokens")(x)
    mean = load("tokens", pool="mean")
    assert torch.allclose(mean(x).embedding, mean.body(x).mean(1))


@pytest.mark.parametrize(
    ("card", "said"),
    [
        ({"factory": "mak"}, "there is no function 'mak'; did you mean 'make'"),
        ({"factory": "nte.py:make"}, r"no such file: .*nte\.py; did you mean 'net\.py'"),
        ({"factory": "net:make"}, r"write file\.py:function"),
        ({"factory": "nothing"}, r"net\.py:nothing returned int, not a torch\.nn\.Module; return the network"),
        ({"factory": "broken"}, r"net\.py:\d+: NameError: name 'undefined_name'"),
        ({"model_args": {"widht": 3}}, "unexpected keyword argument 'widht'"),
        ({"head": "fcc"}, "head: no module 'fcc'.*; did you mean 'fc'"),
        ({"levels": ["stemm"]}, "there is no level 'stemm'; did you mean 'stem'"),
        ({"checkpoint": "w.pth"}, "no such file"),
    ],
)
def test_what_can_be_wrong(load, card, said):
    with pytest.raises(BadInput, match=said) as caught:
        load(**card)
    assert "\n" not in str(caught.value)


def test_a_level_that_is_no_map(load):
    with pytest.raises(BadInput, match=r"levels: 'fc' gives a tensor \(1, 10\); a feature map is"):
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


LAZY = """
from __future__ import annotations
import sys
from dataclasses import dataclass
import torch
from .near import NAME

@dataclass
class Options:
    width: int = 8

class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = torch.nn.Conv2d(3, Options().width, 8, 8)

    def forward(self, x):
        from helpers.deep import shift  # only now, and every time
        import importlib
        assert importlib.import_module("colorsys").__file__.startswith(__file__[:-6])
        print(NAME, "passes")
        return self.conv(x).mean((2, 3)) + shift() + importlib.import_module("dyn" + "amic").MORE
"""


@pytest.fixture
def two(tmp_path):
    """Two cards with files, helpers and a module of the standard library's name, alike in all but what they do."""
    cards = []
    for shift in (1, 2):
        folder = tmp_path / str(shift)
        (folder / "helpers").mkdir(parents=True)
        (folder / "net.py").write_text(LAZY + "import colorsys\n")
        (folder / "near.py").write_text(f"NAME = 'number {shift}'")
        (folder / "helpers" / "deep.py").write_text(f"from .deeper import BASE\ndef shift(): return BASE + {shift}")
        (folder / "helpers" / "deeper.py").write_text("BASE = 10")
        (folder / "colorsys.py").write_text("mine = True")
        (folder / "dynamic.py").write_text(f"MORE = {100 * shift}")
        keys = {"name": "net", "source": "python", "model": "net.py:Net", "input": INPUT, "folder": folder}
        cards.append(BackboneCard(**keys))
    return cards


def shift_of(backbone):
    x = torch.zeros(1, 3, 32, 32)
    with torch.no_grad():
        return round(float((backbone(x).embedding - backbone.body.conv(x).mean((2, 3))).mean()))


def test_helpers_of_the_same_name_do_not_mix(two, capfd):
    import colorsys

    first, second = (load_backbone(card) for card in two)
    assert [shift_of(b) for b in (first, second, first, second)] == [111, 212, 111, 212]
    assert sys.modules["colorsys"] is colorsys
    assert hasattr(colorsys, "rgb_to_hsv")
    assert not {"helpers", "near", "net", "dynamic"} & sys.modules.keys()
    out, err = capfd.readouterr()
    assert (out, "number 1 passes" in err) == ("", True)
    names = {"net.py", "near.py", "colorsys.py", "helpers/deep.py", "helpers/deeper.py"}
    assert all(card.identity()["files"].keys() == names for card in two)


def test_passes_in_threads_keep_their_helpers_and_everybody_s_stdout(two, capfd):
    from concurrent.futures import ThreadPoolExecutor

    backbones = [load_backbone(card) for card in two]
    with ThreadPoolExecutor(4) as pool:
        shifts = pool.map(shift_of, backbones * 10)
        for index in range(20):
            print(f"line {index}")
        assert list(shifts) == [111, 212] * 10
    lines = [line for line in capfd.readouterr().out.splitlines() if line]
    assert lines == [f"line {index}" for index in range(20)]


def test_a_copy_still_passes(two):
    import copy

    assert shift_of(copy.deepcopy(load_backbone(two[0]))) == 111


STRESS = """
import io, sys, threading
from backbench.backbones import load_backbone

backbone = load_backbone(sys.argv[1])
sys.setswitchinterval(1e-6)
over = threading.Event()

def passes():
    while not over.is_set():
        with backbone._code.running():
            pass

threads = [threading.Thread(target=passes) for _ in range(3)]
[thread.start() for thread in threads]
sys.stdout = io.StringIO()
for _ in range(20000):
    print("x", end="")
over.set()
[thread.join() for thread in threads]
sys.stderr.write(f"whole: {sys.stdout.getvalue() == 20000 * 'x'}")
"""


def test_others_may_print_while_stdout_is_put_aside(tmp_path):
    """CPython before 3.14 crashes when stdout is replaced, and freed, in the middle of another thread's print."""
    import subprocess

    (tmp_path / "net.py").write_text("from torch import nn\ndef make():\n    return nn.Conv2d(3, 8, 8, 8)\n")
    (tmp_path / "net.yaml").write_text(
        "source: python\nmodel: net.py:make\ninput: {size: 32, mean: [0.5, 0.5, 0.5], std: [0.5, 0.5, 0.5]}\n"
    )
    code, seen = load_backbone(tmp_path / "net.yaml")._code, []
    for _ in range(2):
        with code.running():
            seen.append(sys.stdout)
    assert seen[0] is seen[1]  # so it is never freed
    command = [sys.executable, "-c", STRESS, str(tmp_path / "net.yaml")]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert (ended.returncode, ended.stderr[-11:]) == (0, "whole: True"), ended.stderr
