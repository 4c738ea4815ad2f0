"""Files that mean harm, are broken, or are not what they are called: one line with its mend, and nothing runs."""

import os
import pickle
import struct
import zipfile

import pytest
import timm
import torch
from backbench.backbones import BadInput, find_backbone, load_backbone
from backbench.backbones.card import BackboneCard
from backbench.backbones.checkpoint import NESTS

STATISTICS = "input: {size: 32, mean: [0.5, 0.5, 0.5], std: [0.5, 0.5, 0.5]}\n"


@pytest.fixture(scope="module")
def weights():
    torch.manual_seed(3)
    return timm.create_model("test_resnet", num_classes=0).state_dict()


@pytest.fixture
def bomb(tmp_path):
    """What makes a file called `exploded` when it is unpickled."""

    class Bomb:
        def __reduce__(self):
            return os.system, (f"touch {tmp_path / 'exploded'}",)

    yield Bomb()
    assert not (tmp_path / "exploded").exists()


@pytest.fixture
def refused(tmp_path):
    """Load a card with this checkpoint beside it; the one line that refuses it."""

    def call(checkpoint, card="source: timm\nmodel: test_resnet\n"):
        path = tmp_path / "card.yaml"
        path.write_text(f"{card}checkpoint: {checkpoint}\n{STATISTICS}")
        with pytest.raises(BadInput) as caught:
            load_backbone(path)
        assert "\n" not in str(caught.value)
        assert len(str(caught.value)) < 700
        return str(caught.value)

    return call


# -- checkpoints ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["w.pth", "w.pt", "w.pth.tar", "w.bin"])
@pytest.mark.parametrize("nest", [False, True])
@pytest.mark.parametrize("plain", [False, True])
def test_a_pickle_with_code_is_refused_and_not_run(name, nest, plain, bomb, weights, refused, tmp_path):
    found = {"model": weights, "args": {"deep": [bomb]}} if nest else bomb
    if plain:
        (tmp_path / name).write_bytes(pickle.dumps(found if not nest else {"args": bomb}, protocol=2))
    else:
        torch.save(found, tmp_path / name)
    assert "wants to run code (" in refused(name)
    assert "which is refused; save the bare weights" in refused(name)


def test_a_pickle_that_is_called_safetensors_is_not_opened(bomb, refused, tmp_path):
    for save in (torch.save, lambda value, path: path.write_bytes(pickle.dumps(value, protocol=2))):
        save({"state_dict": bomb}, tmp_path / "w.safetensors")
        assert "is called .safetensors and holds something else" in refused("w.safetensors")


def test_code_in_what_is_a_namespace_otherwise_is_not_run(bomb, weights, refused, tmp_path):
    from argparse import Namespace

    torch.save({"model": weights, "args": Namespace(lr=0.1, hook=bomb)}, tmp_path / "w.pth")
    assert "wants to run code" in refused("w.pth")


@pytest.mark.filterwarnings("ignore:.*torch.jit:FutureWarning")
def test_a_torchscript_archive_is_refused(refused, tmp_path):
    torch.jit.save(torch.jit.script(torch.nn.Conv2d(3, 4, 1)), tmp_path / "w.pt")
    assert "is a TorchScript archive, which carries code; none is run" in refused("w.pt")
    assert "torch.save(torch.jit.load(file).state_dict(), " in refused("w.pt")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "is empty; download it again"),
        (b"<!DOCTYPE html>\n<html><body>Sign in</body></html>", "is a web page, not weights; download the file itself"),
        (b"  <html lang=en>", "is a web page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n", "git-lfs pointer.*run `git lfs pull`"),
        (struct.pack("<Q", 1 << 60) + b"{" + b" " * 90, "damaged or cut short; download it again"),
    ],
)
@pytest.mark.parametrize("name", ["w.pth", "w.safetensors"])
def test_what_is_no_checkpoint_is_told_for_what_it_is(content, said, name, refused, tmp_path):
    import re

    (tmp_path / name).write_bytes(content)
    assert re.search(said, refused(name))


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"PK\x03\x04 and no more", "damaged or cut short; download it again"),
        (b"\x80\x02}q\x00.", "damaged or cut short; download it again"),
        (b"epoch,loss\n1,0.5\n", "is not a file of weights; give safetensors or what torch.save wrote"),
    ],
)
def test_what_torch_cannot_open_is_told(content, said, refused, tmp_path):
    (tmp_path / "w.pth").write_bytes(content)
    assert said in refused("w.pth")


def test_a_file_without_tensors_is_told(refused, tmp_path):
    torch.save([torch.zeros(3)], tmp_path / "list.pth")
    torch.save({"epoch": 3, "lr": 0.1}, tmp_path / "options.pth")
    assert "holds no weights but a list; give a mapping of names to tensors" in refused("list.pth")
    assert "holds no weights but a dict; its keys are: epoch, lr; give" in refused("options.pth")


@pytest.mark.parametrize("keys", [["state_dict"], NESTS, [f"k{i}" for i in range(20)]])
def test_mappings_that_hold_themselves_are_walked_once(keys, weights, refused, tmp_path):
    loop = {}
    loop |= dict.fromkeys(keys, loop)
    torch.save(loop, tmp_path / "w.pth")
    assert "holds no weights" in refused("w.pth")
    torch.save(loop | {"unheard": {"of": weights | {"rest": 0}}} | loop, tmp_path / "w.pth")
    path = tmp_path / "card.yaml"
    assert load_backbone(path).embed_dim > 0


def test_numpy_s_archives_are_told(refused, tmp_path):
    import numpy as np

    np.savez(tmp_path / "w.npz", kernel=np.zeros(3))
    assert "is an archive of numpy arrays; save them as tensors" in refused("w.npz")


@pytest.mark.parametrize("share", [0.1, 0.5, 0.99])
@pytest.mark.parametrize("kind", ["zip", "legacy", "safetensors"])
def test_a_truncated_file_is_told(kind, share, weights, refused, tmp_path):
    from safetensors.torch import save_file

    whole = tmp_path / "whole"
    if kind == "safetensors":
        save_file(weights, whole)
    else:
        torch.save(weights, whole, _use_new_zipfile_serialization=kind == "zip")
    (tmp_path / "w.pth").write_bytes(whole.read_bytes()[: int(whole.stat().st_size * share)])
    assert "damaged or cut short; download it again" in refused("w.pth")


def test_flipped_bytes_never_pass_for_other_weights_unseen(weights, tmp_path):
    """torch does not look at a zip's own checksums: NaNs in the place of weights are found all the same."""
    torch.save(weights, tmp_path / "w.pth")
    content = bytearray((tmp_path / "w.pth").read_bytes())
    with zipfile.ZipFile(tmp_path / "w.pth") as archive:
        entry = next(info for info in archive.infolist() if info.filename.endswith("/data/0"))
    start = content.index(b"data/0", entry.header_offset) + 64
    content[start : start + 400] = b"\xff" * 400  # NaNs, as floats
    (tmp_path / "w.pth").write_bytes(content)
    path = tmp_path / "card.yaml"
    path.write_text(f"source: timm\nmodel: test_resnet\ncheckpoint: w.pth\n{STATISTICS}")
    with pytest.raises(BadInput, match=r"NaN or infinite|cannot be read"):
        load_backbone(path)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("kind", [torch.float32, torch.float16])
def test_weights_that_are_not_finite_name_the_tensor(value, kind, weights, refused, tmp_path):
    broken = {name: tensor.clone().to(kind) if tensor.ndim else tensor for name, tensor in weights.items()}
    broken["layer3.0.conv2.weight"][0, 0] = value
    torch.save(broken, tmp_path / "w.pth")
    assert "w.pth: layer3.0.conv2.weight has 9 of" in refused("w.pth")
    assert "values that are NaN or infinite: training diverged or the file is damaged" in refused("w.pth")


def test_quantised_weights_are_told(weights, refused, tmp_path):
    torch.save({name: tensor.to(torch.int8) for name, tensor in weights.items()}, tmp_path / "w.pth")
    assert "is int8, the network wants floats: a quantised file?" in refused("w.pth")


def test_wrong_shapes_and_absent_files(weights, refused, tmp_path):
    torch.save(
        {name: tensor[..., :1] if tensor.ndim else tensor for name, tensor in weights.items()}, tmp_path / "w.pth"
    )
    assert "conv1.0.weight has shape (16, 3, 3, 1), the network wants (16, 3, 3, 3)" in refused("w.pth")
    assert "no such file" in refused("w.pht")
    assert "did you mean 'w.pth'?" in refused("w.pht")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "net.pth").write_bytes(b"")
    assert "is a folder; name the file of weights in it, say folder/net.pth" in refused("folder")


# -- cards ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("source: timm\nmodle: resnet18\n", "card.yaml:2: modle: unknown key; did you mean 'model'?"),
        ("!!python/object/apply:os.system ['touch exploded']\n", "not valid YAML: could not determine a constructor"),
        ("source: timm\nmodel: !!python/name:os.system\n", "not valid YAML: could not determine a constructor"),
        ("source: timm\nmodel: x\nmodel_args: {trust_remote_code: true}\n", "'trust_remote_code' is refused"),
        (
            "source: transformers\nmodel: x\nmodel_args: {a: [{trust_remote_code: true}]}\n",
            "'trust_remote_code' is ref",
        ),
        ("source: timm\nmodel: x\nmodel_args: {a: 2024-01-01}\n", "model_args: a is date; only texts, numbers"),
        ("source: timm\nmodel: x\nmodel_args: {a: !!binary gIGC}\n", "model_args: a is bytes; only texts, numbers"),
        ("source: timm\nmodel: x\nlayout: NHWC\n", "are for `source: python`"),
        ("#" * (2 << 20), "a card is a short YAML text"),
        ("[" * 500, "not valid YAML"),
    ],
)
def test_cards_that_mean_harm_or_are_broken(text, said, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "card.yaml").write_text(text)
    with pytest.raises(BadInput) as caught:
        find_backbone(tmp_path / "card.yaml")
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "exploded").exists()


def test_a_text_of_aliases_that_stands_for_billions_of_values(tmp_path):
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 6)]
    (tmp_path / "card.yaml").write_text("\n".join(lines))
    with pytest.raises(BadInput, match="write it without aliases"):
        find_backbone(tmp_path / "card.yaml")


def test_the_same_card_and_bytes_are_the_same_backbone_on_every_machine(weights, tmp_path, monkeypatch):
    digests, texts = set(), []
    for machine in ("home/ann/cards", "srv/x"):
        folder = tmp_path / machine
        folder.mkdir(parents=True)
        torch.save(weights, folder / "w.pth")
        (folder / "net.py").write_text("import helper")
        (folder / "helper.py").write_text("")
        timms = f"source: timm\nmodel: test_resnet\ncheckpoint: {folder}/w.pth\n"
        own = f"source: python\nmodel: {folder}/net.py:Net\ncheckpoint: {folder}/../{folder.name}/w.pth\n"
        for name, text in (("timm", timms), ("own", own)):
            (folder / f"{name}.yaml").write_text(text + STATISTICS)
        monkeypatch.chdir(folder)
        cards = [find_backbone(path) for path in ("timm.yaml", folder / "timm.yaml", "own.yaml", folder / "own.yaml")]
        digests.add(tuple(card.digest() for card in cards))
        texts += [str(card.identity()) for card in cards]
        moved = cards[0].model_copy(update={"checkpoint": cards[0].checkpoint.model_copy(update={"path": "w.pth"})})
        assert moved.digest() == cards[0].digest() == cards[1].digest()
        assert cards[2].digest() == cards[3].digest()
    assert len(digests) == 1
    assert not any("ann" in text or "srv" in text or str(tmp_path) in text for text in texts)
    (folder / "helper.py").write_text("changed = True")
    assert find_backbone("own.yaml").digest() not in next(iter(digests))


def test_a_null_in_a_card_is_part_of_who_it_is():
    def digest(**card):
        return BackboneCard(source="timm", model="x", **card).digest()

    assert (
        len({digest(), digest(model_args={"a": None}), digest(key_map={"a.": None}), digest(key_map={"a.": ""})}) == 4
    )


# -- python --------------------------------------------------------------------------------------------------------

FINE = "import torch\ndef make(): return torch.nn.Conv2d(3, 4, 8, 8)\n"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("x = 1\nraise OSError('no\\nlicence')\n", "net.py:2: OSError: no licence"),
        ("def make(:\n", "net.py:1: SyntaxError"),
        ("import broken\n", "broken.py:1: SyntaxError"),
        ("import absent_package\n", "net.py:1: ModuleNotFoundError: No module named 'absent_package'; install it, or"),
        ("import argparse\nargparse.ArgumentParser().parse_args(['--x'])\n", "net.py:2: SystemExit: 2"),
        ("import sys\nsys.exit(0)\n", "net.py:2: SystemExit: 0"),
        ("make = 3\n", "there is no function 'make'"),
        ("def make(): return None\n", "net.py:make returned NoneType, not a torch.nn.Module; return the network"),
        ("import torch\ndef make(): return torch.nn.Linear\n", "returned the class Linear, not a torch.nn.Module"),
        ("def make():\n    return make()\n", "net.py:2: RecursionError"),
        (
            "import torch\nclass make(torch.nn.Module):\n    def forward(self, x):\n        return x @ torch.eye(2)\n",
            "net.py:4: RuntimeError",
        ),
    ],
)
def test_a_python_file_that_fails_is_told_by_its_own_line(text, said, tmp_path):
    (tmp_path / "net.py").write_text(text)
    (tmp_path / "broken.py").write_text("def (\n")
    (tmp_path / "card.yaml").write_text(f"source: python\nmodel: net.py:make\n{STATISTICS}")
    with pytest.raises(BadInput) as caught:
        load_backbone(tmp_path / "card.yaml")
    assert said in str(caught.value)
    assert str(tmp_path) in str(caught.value) or "make" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_on_the_command_line_each_ends_with_code_2_and_one_line(cli, bomb, tmp_path):
    torch.save({"state_dict": bomb}, tmp_path / "w.pth")
    (tmp_path / "net.py").write_text("def make():\n    return undefined\n")
    cards = {
        f"source: timm\nmodel: test_resnet\ncheckpoint: w.pth\n{STATISTICS}": "wants to run code",
        f"source: python\nmodel: net.py:make\n{STATISTICS}": "net.py:2: NameError: name 'undefined' is not defined",
        "source: timm\nmodel: test_resnet\nmodel_args: {trust_remote_code: true}\n": "code from a hub is never run",
    }
    for text, said in cards.items():
        (tmp_path / "card.yaml").write_text(text)
        ended = cli("check", tmp_path / "card.yaml")
        assert (ended.code, ended.out) == (2, "")
        assert len(ended.lines) == 1
        assert said in ended.lines[0]
