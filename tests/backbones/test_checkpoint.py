"""Files of weights: what fits is loaded, what does not is told, and nothing in them runs."""

import os
import pickle

import pytest
import timm
import torch
from backbench.backbones import BadInput, Unavailable, load_backbone
from backbench.backbones.card import BackboneCard, file_digest
from backbench.backbones.checkpoint import NESTS, fit, read_weights, rename
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file

STATISTICS = {"mean": [0.5] * 3, "std": [0.5] * 3}


@pytest.fixture(scope="module")
def trained():
    """A network with other weights than the seed gives, its classifier on."""
    torch.manual_seed(7)
    return timm.create_model("test_resnet").eval()


@pytest.fixture
def load(tmp_path):
    """Save what is given and load it through a card."""

    def call(weights, name="weights.pth", save=torch.save, **card):
        save(weights, tmp_path / name)
        checkpoint = card.pop("checkpoint", name)
        kept = {"name": "net", "source": "timm", "model": "test_resnet", "input": STATISTICS, "folder": tmp_path}
        return load_backbone(BackboneCard(checkpoint=checkpoint, **(kept | card)))

    return call


def same(backbone, network):
    x = torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        want = network.forward_head(network.forward_features(x), pre_logits=True)
        return torch.equal(backbone(x).embedding, want)


def prefixed(prefix, weights):
    return {prefix + key: value for key, value in weights.items()}


def test_bare_weights_in_both_formats(load, trained):
    assert same(load(trained.state_dict()), trained)
    assert same(load(trained.state_dict(), "weights.safetensors", save_file), trained)


@pytest.mark.parametrize("nest", NESTS)
def test_nested_weights(load, trained, nest):
    assert same(load({nest: {"state_dict": trained.state_dict()}, "epoch": 3}), trained)


@pytest.mark.parametrize("prefix", ["module.", "backbone.", "module.encoder.", "_orig_mod."])
def test_a_wrapper_s_prefix_is_stripped(load, trained, prefix):
    weights = prefixed(prefix, trained.state_dict()) | {"projector.weight": torch.zeros(2), "queue": torch.zeros(3)}
    assert same(load(weights), trained)


def test_the_classifier_and_batch_counters_may_be_missing(load, trained):
    weights = {
        k: v for k, v in trained.state_dict().items() if not k.endswith("num_batches_tracked") and k[:3] != "fc."
    }
    assert same(load(weights), trained)


def test_key_map_renames(load, trained):
    weights = {k.replace("layer1.", "stage1."): v for k, v in trained.state_dict().items()}
    with pytest.raises(BadInput, match=r"lacks \d+ of \d+ names \(layer1"):
        load(weights)
    assert same(load(weights, key_map={"stage1.": "layer1."}), trained)


def test_of_several_networks_the_card_chooses(load, trained):
    online, average = trained.state_dict(), {k: v + 1 for k, v in trained.state_dict().items()}
    both = prefixed("online.", average) | prefixed("target.", online)
    with pytest.raises(BadInput, match=r"several networks.*key_map: \{'online\.': ''\}"):
        load(both)
    assert same(load(both, key_map={"target.": ""}), trained)


def test_the_prefix_that_would_nearly_fit_is_proposed(load, trained):
    weights = prefixed("online.", trained.state_dict())
    del weights["online.conv1.0.weight"]
    with pytest.raises(BadInput, match=r"conv1\.0\.weight.*fit with key_map: \{'online\.': ''\}"):
        load({**weights, "online.conv1.0.weird": torch.zeros(1)})


def test_a_prefix_that_the_network_has_is_proposed():
    weights, wanted = (
        {"a.w": torch.ones(1), "b.w": torch.ones(1)},
        {"net.a.w": torch.zeros(1), "net.b.w": torch.zeros(1)},
    )
    with pytest.raises(BadInput, match=r"2 of 2 fit with key_map: \{'': 'net\.'\}"):
        fit(weights, wanted, (), "here")
    assert fit(rename(weights, {"": "net."}), wanted, (), "here").keys() == wanted.keys()


def test_leftovers_outside_the_classifier_are_refused(load, trained):
    with pytest.raises(BadInput, match=r"1 names that the network lacks \(layer9\.weight\)"):
        load(trained.state_dict() | {"layer9.weight": torch.zeros(1)})


def test_another_architecture_is_told_by_its_shapes(load, trained):
    weights = trained.state_dict()
    weights["layer4.0.conv1.weight"] = torch.zeros(3, 3, 1, 1)
    with pytest.raises(BadInput, match=r"layer4\.0\.conv1\.weight has shape \(3, 3, 1, 1\), the network wants"):
        load(weights)


def test_a_wrong_model_is_told_in_one_line(load):
    with pytest.raises(BadInput) as caught:
        load(timm.create_model("test_vit").state_dict())
    assert "\n" not in str(caught.value)
    assert "lacks" in str(caught.value)


def test_sha256_is_verified(load, trained, tmp_path):
    load(trained.state_dict())
    digest = file_digest(tmp_path / "weights.pth")
    weights = torch.load(tmp_path / "weights.pth")
    keep = lambda _weights, _path: None  # noqa: E731 - the file is there already
    load(weights, save=keep, checkpoint={"path": "weights.pth", "sha256": digest})
    with pytest.raises(BadInput, match=f"has sha256 {digest}, the card says 0000"):
        load(weights, save=keep, checkpoint={"path": "weights.pth", "sha256": "0" * 64})


def test_a_missing_file_names_the_nearest(load, trained):
    with pytest.raises(BadInput, match=r"no such file: .*; did you mean 'weights\.pth'\?"):
        load(trained.state_dict(), checkpoint="weihgts.pth")


def test_a_pickle_that_runs_code_is_refused(load, tmp_path):
    class Bomb:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "exploded"),)

    with pytest.raises(BadInput, match=r"wants to run code \(.*mkdir.*\), which is refused") as caught:
        load({"state_dict": Bomb()})
    assert "\n" not in str(caught.value)
    with pytest.raises(BadInput):
        load({"state_dict": Bomb()}, save=lambda value, path: path.write_bytes(pickle.dumps(value)))
    assert not (tmp_path / "exploded").exists()


@pytest.mark.parametrize("content", [b"", b"not weights at all", b"PK\x03\x04broken", b"\x80\x02}q\x00."])
@pytest.mark.parametrize("name", ["w.pth", "w.safetensors", "w.bin"])
def test_what_is_no_checkpoint_is_told_in_one_line(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(BadInput) as caught:
        read_weights(tmp_path / name)
    assert "\n" not in str(caught.value)


@given(st.binary(max_size=200))
def test_any_bytes_are_weights_or_one_line(tmp_path_factory, content):
    path = tmp_path_factory.mktemp("any") / "w.pth"
    path.write_bytes(content)
    with pytest.raises(BadInput):
        read_weights(path)


KEYS = st.lists(st.from_regex(r"[a-c](\.[a-c0-3]){0,3}", fullmatch=True), min_size=2, max_size=8, unique=True)


@given(KEYS, st.sampled_from(["module.", "x.y.", "z."]))
def test_fit_finds_what_was_wrapped(keys, prefix):
    wanted = {key: torch.zeros(1) for key in keys}
    found = fit({prefix + key: torch.ones(1) for key in keys}, wanted, (), "here")
    assert found.keys() == wanted.keys()
    assert all(value.item() == 1 for value in found.values())


@given(KEYS, KEYS)
def test_rename_keeps_every_tensor(keys, prefixes):
    weights = {key: torch.tensor(index) for index, key in enumerate(keys)}
    assert rename(weights, {}) == weights
    renamed = rename(weights, {f"{prefix}.": f"new.{prefix}." for prefix in prefixes})
    assert sorted(value.item() for value in renamed.values()) == list(range(len(keys)))


@pytest.mark.parametrize(
    ("path", "error", "said"),
    [
        ("http://somewhere/w.pth", BadInput, "http:// is not read"),
        ("hf://only-one", BadInput, "hf://owner/name/file"),
        ("https://nowhere.invalid/w.pth", Unavailable, "no network to nowhere.invalid"),
        ("hf://owner/name/w.safetensors", Unavailable, "no network"),
    ],
)
def test_remote_files(load, trained, path, error, said, monkeypatch, tmp_path):
    from backbench.backbones import hub

    monkeypatch.setattr(hub, "reachable", lambda host: False)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    with pytest.raises(error, match=said):
        load(trained.state_dict(), checkpoint=path)


def test_a_url_is_downloaded_once(load, trained, monkeypatch, tmp_path):
    from backbench.backbones import hub

    calls = []

    def download(url, path, progress):
        calls.append(url)
        torch.save(trained.state_dict(), path)

    monkeypatch.setattr(hub, "reachable", lambda host: True)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    monkeypatch.setattr(torch.hub, "download_url_to_file", download)
    for _ in range(2):
        assert same(load(trained.state_dict(), checkpoint="https://example.org/w.pth"), trained)
    assert calls == ["https://example.org/w.pth"]
