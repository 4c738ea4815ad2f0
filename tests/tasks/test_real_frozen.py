"""Frozen tasks on real images with real backbones."""

import gzip
import zipfile

import numpy as np
import pytest
from backbench.backbones import find_backbone, load_backbone
from backbench.tasks import estimate, find_task, load_dataset

pytestmark = pytest.mark.real

HALF = "mean: [0.5, 0.5, 0.5], std: [0.5, 0.5, 0.5]"
CARDS = {
    "mobilenetv1": "source: python\nmodel: net.py:make\nhead: classifier\n"
    "checkpoint: {root}/weights/mobilenetv1_050_imagenet/mobilenetv1_050_160_fp16.pth\n"
    f"input: {{{{size: 160, {HALF}}}}}\n",
    "random": "source: python\nmodel: net.py:make\nhead: classifier\npretrained: false\n"
    f"input: {{{{size: 160, {HALF}}}}}\n",
    "clothing": "kind: classification\nsource: imagefolder\npath: {root}/datasets/clothing_small_cc0\n"
    "splits: {{train: train, val: validation, test: test}}\nlicense: CC0-1.0\n",
    "shapes": "kind: retrieval\nsource: lists\npath: {root}/datasets/texture_vs_shape/stimuli\n"
    "pattern: '(?P<label>[^/]+)/[^/]+$'\nsplits: {{query: filled-silhouettes, gallery: edges}}\n",
    "characters": "kind: retrieval\nsource: lists\npath: images_background_small1/Latin\n"
    "pattern: '(?P<label>[^/]+)/[^/]+$'\n"
    "splits: {{gallery: ., query: {{from: gallery, fraction: 0.1, take: first}}}}\n",
    "runs": "kind: episodes\nsource: omniglot\npath: runs\nsplits: {{support: ., query: .}}\n",
    "digits": "kind: classification\nsource: arrays\nclasses: ['0', '1', '2', '3', '4', '5', '6', '7', '8', '9']\n"
    "splits: {{train: train.npz, val: val.npz, test: test.npz}}\n",
}
NET = """
from timm.models.efficientnet import _gen_mobilenet_v1

def make():
    return _gen_mobilenet_v1("mobilenetv1_100", 0.5, pad_type="same")
"""


@pytest.fixture
def measured(mobilenet, real_data, tmp_path, context):
    """`measured(backbone, task, data, **settings)`: the measure of a run on cards by these names."""
    (tmp_path / "net.py").write_text(NET)
    for name, text in CARDS.items():
        (tmp_path / f"{name}.yaml").write_text(text.format(root=real_data))
    loaded = {mobilenet.stem: load_backbone(find_backbone(mobilenet))}

    def measure(backbone, task, data, **settings):
        if backbone not in loaded:
            loaded[backbone] = load_backbone(find_backbone(tmp_path / f"{backbone}.yaml"))
        task = find_task(task)
        opened = load_dataset(tmp_path / f"{data}.yaml", task.needs.data)
        outcome = task.run(loaded[backbone], opened, task.recipe(settings), context)
        found = task.measure(outcome.predictions, opened)
        score = estimate(found)[task.headline]
        print(f"{backbone} {task.name} {data}: {score.value:.1f} [{score.low:.1f}, {score.high:.1f}]")
        return found

    return measure


@pytest.fixture
def unpacked(real_data, tmp_path):
    """Omniglot's archives, beside the cards."""
    for name, folder in (("images_background_small1", tmp_path), ("all_runs", tmp_path / "runs")):
        with zipfile.ZipFile(real_data / "datasets" / "omniglot_small" / f"{name}.zip") as archive:
            archive.extractall(folder)


def test_photographs_of_clothes(measured, context):
    """Others' 5-NN with these weights on this data set: 60.8 % of ten classes."""
    probe, knn = (estimate(measured("mobilenetv2", task, "clothing"))["top1"] for task in ("linear-probe", "knn"))
    assert probe.low > 60
    assert knn.low > 45
    few = estimate(measured("mobilenetv2", "few-shot", "clothing", head="least-squares"))
    assert few["shots_1"].low > 10  # chance
    assert few["shots_1"].value < few["shots_4"].value < few["shots_16"].value
    assert few["shots_16"].low > 45
    assert context.images == 420  # each once: the tasks share the features


@pytest.mark.usefixtures("unpacked")
def test_one_shot_runs_of_omniglot(measured):
    """Twenty runs of twenty characters: 5 % by chance."""
    trained, random = (measured(name, "one-shot", "runs") for name in ("mobilenetv1", "random"))
    assert trained.examples == 400
    assert len(set(trained.groups)) == 20
    assert estimate(trained)["top1"].low > 40
    assert estimate(trained)["top1"].low > estimate(random)["top1"].high


@pytest.mark.usefixtures("unpacked")
def test_retrieval_of_handwritten_characters_and_of_shapes(measured):
    for data in ("characters", "shapes"):
        trained, random = (estimate(measured(name, "retrieval", data))["map"] for name in ("mobilenetv1", "random"))
        assert trained.low > random.high


def test_digits_by_a_fixed_split(measured, real_data, tmp_path):
    images, labels = (
        np.frombuffer(
            gzip.decompress((real_data / "datasets/mnist_t10k" / f"t10k-{name}-ubyte.gz").read_bytes()), np.uint8
        )
        for name in ("images-idx3", "labels-idx1")
    )
    images, labels = images[16:].reshape(-1, 28, 28), labels[8:].astype(np.int64)
    for name, start, end in (("train", 0, 600), ("val", 600, 700), ("test", 700, 1000)):
        np.savez(tmp_path / f"{name}.npz", images=images[start:end], labels=labels[start:end])
    trained, random = (measured(name, "knn", "digits") for name in ("mobilenetv1", "random"))
    assert estimate(trained)["top1"].low > 75
    assert estimate(trained)["top1"].low > estimate(random)["top1"].high
