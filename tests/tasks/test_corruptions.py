"""Corruptions: their definitions against other implementations, their strength, and the scores of the task."""

import numpy as np
import pytest
from backbench.backbones import BadInput, load_backbone
from backbench.tasks import Dataset, Split, estimate, find_task, read_predictions, write_predictions
from backbench.tasks.ood import blur, digital, noise, weather
from backbench.tasks.ood.corrupted import CORRUPTIONS, COUNTED, SEVERITIES, SIDE, corrupt, corrupted, prepared
from backbench.tasks.ood.corruptions import ALEXNET, ALEXNET_CLEAN, PUBLISHED, accuracy_table
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.colors import hsv_to_rgb, rgb_to_hsv
from PIL import Image
from scipy.ndimage import convolve
from sklearn.datasets import load_sample_images

# The authors' constants go another way after the second severity: other kinds of stretching and of colours.
TURNING = ("elastic-transform", "saturate")


@pytest.fixture(scope="module")
def photographs():
    """Pieces of scikit-learn's two photographs, of the size that the constants are for."""
    return [image[y : y + SIDE, y : y + SIDE] for image in load_sample_images().images for y in (0, 171)]


@pytest.fixture(scope="module")
def picture():
    return np.random.default_rng(0).integers(0, 256, (24, 31, 3)).astype(np.uint8)


def distance(a, b):
    return np.sqrt(np.mean((a / 255.0 - b / 255.0) ** 2))


def decorrelation(a, b):
    return 1 - np.corrcoef(a.ravel(), b.ravel())[0, 1]


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_a_higher_severity_is_further_from_the_clean_image(name, photographs):
    """In distance, or in what is left of the structure; nowhere does both fall."""
    made = [[corrupt(image, name, severity) for severity in SEVERITIES] for image in photographs]
    far = np.array([[distance(m, i) for m in ms] for ms, i in zip(made, photographs, strict=True)]).mean(axis=0)
    loss = np.array([[decorrelation(m, i) for m in ms] for ms, i in zip(made, photographs, strict=True)]).mean(axis=0)
    assert far[0] > 0.005
    steps = (np.diff(far) > 0) | (np.diff(loss) > 0)
    if name in TURNING:
        assert np.diff(far)[0] > 0
        assert (np.diff(far)[2:] > 0).all()
    else:
        assert steps.all(), (far, loss)
        assert far[4] > 1.1 * far[0]


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_the_same_image_gives_the_same_pixels_wherever_it_stands(name, picture):
    first = corrupt(picture, name, 3)
    assert first.dtype == np.uint8
    assert first.shape == picture.shape
    np.testing.assert_array_equal(first, corrupt(Image.fromarray(picture), name, 3))
    other = picture.copy()
    other[0, 0] ^= 1
    if name.endswith("noise"):
        assert (corrupt(other, name, 3) != first).any(axis=2).mean() > 0.1  # another draw


@given(st.sampled_from(list(CORRUPTIONS)), st.sampled_from(SEVERITIES), st.integers(1, 40), st.integers(1, 40))
def test_any_size_and_constant_images(name, severity, height, width):
    for shade in (0, 255, 90):
        image = np.full((height, width, 3), shade, np.uint8)
        with np.errstate(all="raise", under="ignore"):
            made = corrupt(image, name, severity)
        assert made.shape == image.shape
        assert made.dtype == np.uint8


def test_larger_images_are_made_as_small_as_imagenets(picture):
    large = Image.fromarray(picture).resize((600, 400))
    assert prepared(large).shape == (SIDE, 384, 3)
    assert prepared(picture).shape == picture.shape
    assert corrupt(large.convert("L"), "contrast", 1).shape == (SIDE, 384, 3)


def test_the_constants_are_the_authors(picture):
    """At their own size, in distributions: noise of the deviation, pixels hit, photons."""
    grey = np.full((256, 256, 3), 0.5)
    rng = np.random.default_rng(1)
    for severity, deviation in enumerate((0.08, 0.12, 0.18, 0.26, 0.38)):
        constant = CORRUPTIONS["gaussian-noise"].constants[severity]
        assert np.std(noise.gaussian_noise(grey, constant, rng, 1.0) - grey) == pytest.approx(deviation, rel=0.01)
    shot = noise.shot_noise(grey, 12, rng, 1.0)
    assert (shot.mean(), shot.var()) == pytest.approx((0.5, 0.5 / 12), rel=0.02)
    hit = noise.impulse_noise(grey, 0.27, rng, 1.0)
    assert np.mean(hit != 0.5) == pytest.approx(0.27, rel=0.02)
    assert np.mean(hit == 1) == pytest.approx(0.135, rel=0.04)
    assert np.std(noise.speckle_noise(grey, 0.6, rng, 1.0) - grey) == pytest.approx(0.3, rel=0.01)
    assert np.std(noise.gaussian_noise(grey, 0.26, rng, 0.5) - grey) == pytest.approx(0.13, rel=0.01)


@pytest.mark.parametrize("more", [0.1, 0.5])
def test_brightness_is_the_value_of_hsv(picture, more):
    x = picture / 255
    hsv = rgb_to_hsv(x)
    hsv[..., 2] = np.clip(hsv[..., 2] + more, 0, 1)
    np.testing.assert_allclose(digital.brightness(x, more), hsv_to_rgb(hsv), atol=1e-12)


@pytest.mark.parametrize("constants", CORRUPTIONS["saturate"].constants)
def test_saturate_is_the_saturation_of_hsv(picture, constants):
    x = np.concatenate([picture / 255, np.full((1, 31, 3), 0.4)])  # with greys, whose hue is 0
    hsv = rgb_to_hsv(x)
    hsv[..., 1] = np.clip(hsv[..., 1] * constants[0] + constants[1], 0, 1)
    np.testing.assert_allclose(digital.saturate(x, *constants), hsv_to_rgb(hsv), atol=1e-12)


def test_blurs_are_plain_convolutions(picture):
    x, kernel = picture / 255, blur.disk(3.0, 0.1)
    assert kernel.sum() == pytest.approx(1)
    assert np.count_nonzero(kernel > kernel.max() / 2) == pytest.approx(np.pi * 9, rel=0.15)
    plain = np.stack([convolve(x[..., c], kernel, mode="mirror") for c in range(3)], axis=2)
    np.testing.assert_allclose(blur.defocus_blur(x, 3.0, 0.1), plain, atol=1e-9)
    line = blur.trail(6.0, 3.0, 0.0)
    middle = len(line) // 2
    assert line.sum() == pytest.approx(1)
    assert (line[middle, :middle].sum(), np.delete(line, middle, axis=0).sum()) == (0, 0)  # to one side, on one row
    down = blur.trail(6.0, 3.0, -90.0)
    np.testing.assert_allclose(down, line.T, atol=1e-12)


def test_glass_exchanges_pixels_and_loses_none():
    x = np.arange(40 * 30 * 3).reshape(40, 30, 3) % 256 / 255
    sharp = 1e-3  # no blur
    made = blur.glass_blur(x, sharp, 2, 2, np.random.default_rng(0))
    assert sorted(map(tuple, np.round(made * 255).reshape(-1, 3))) == sorted(
        map(tuple, np.round(x * 255).reshape(-1, 3))
    )
    assert (np.round(made * 255) != np.round(x * 255)).any(axis=2).mean() > 0.5


def test_contrast_pixelate_and_jpeg_are_what_they_say(picture):
    x = picture / 255
    means = x.mean(axis=(0, 1))
    np.testing.assert_allclose(digital.contrast(x, 0.05).mean(axis=(0, 1)), means)
    np.testing.assert_allclose(np.std(digital.contrast(x, 0.05)), 0.05 * np.std(x - means), rtol=0.2)
    blocks = digital.pixelate(np.kron(x[:4, :4], np.ones((4, 4, 1))), 4)
    np.testing.assert_allclose(blocks, np.kron(x[:4, :4], np.ones((4, 4, 1))), atol=1 / 255)
    assert len(np.unique(digital.pixelate(x, 8).reshape(-1, 3), axis=0)) <= 3 * 4


def test_a_plasma_is_a_torus_in_0_to_1_and_rough_where_it_decays_slowly():
    rough, smooth = (weather.plasma((64, 64), decay, np.random.default_rng(0)) for decay in (1.2, 3))
    for field in (rough, smooth):
        assert (field.min(), field.max()) == (0, 1)
    steps = [np.abs(np.diff(field, axis=0)).mean() for field in (rough, smooth)]
    assert steps[0] > 2 * steps[1]
    assert weather.plasma((5, 9), 2, np.random.default_rng(0)).shape == (5, 9)


def test_a_corrupted_split_is_another_split(squares_data):
    test = squares_data()["test"]
    prints = {corrupted(test, name, severity).fingerprint for name in CORRUPTIONS for severity in SEVERITIES}
    assert len(prints | {test.fingerprint}) == 19 * 5 + 1
    made = corrupted(test, "fog", 2)
    assert made.ids == test.ids
    np.testing.assert_array_equal(made.targets, test.targets)
    np.testing.assert_array_equal(made.images[7], corrupt(test.images[7], "fog", 2))
    np.testing.assert_array_equal(made.take(5).images[0], made.images[0])
    with pytest.raises(BadInput, match="there is no corruption 'frog'; did you mean 'fog'"):
        corrupted(test, "frog", 1)
    with pytest.raises(BadInput, match="a severity is one of 1, 2, 3, 4, 5, got 6"):
        corrupt(test.images[0], "fog", 6)


# -- the task ------------------------------------------------------------------------------------------------------

FEW = {"corruptions": ["gaussian-noise", "fog", "contrast"], "severities": [1, 5]}


@pytest.fixture
def ran(make_backbone, squares_data, context):
    """`ran(**recipe)`: predictions, data and what was chosen."""
    task = find_task("corruptions")

    def run(seed=0, **recipe):
        data = squares_data()
        outcome = task.run(make_backbone(seed), data, task.recipe(FEW | recipe), context)
        return outcome.predictions, data, outcome.chosen

    return run


def test_scores_are_means_of_errors_and_come_from_stored_predictions(ran, tmp_path):
    task = find_task("corruptions")
    predictions, data, _ = ran()
    write_predictions(predictions, tmp_path / "p.parquet")
    stored = read_predictions(tmp_path / "p.parquet")
    found = task.measure(stored, data).scores(np.ones(50))
    labels = np.asarray(data["test"].targets)
    error = {
        name: 100 * np.mean([np.mean(stored[f"{name} {s}"] != labels) for s in (1, 5)]) for name in FEW["corruptions"]
    }
    clean = 100 * np.mean(stored["clean"] != labels)
    expected = {"corruption_error": np.mean([*error.values()]), "clean_error": clean}
    expected |= {"error_increase": np.mean([*error.values()]) - clean} | {f"error:{n}": e for n, e in error.items()}
    assert found == pytest.approx(expected)
    for name, one in estimate(task.measure(stored, data)).items():
        metric = task.metric(name)
        assert metric.low <= one.low <= one.value <= one.high <= metric.high
    probe = find_task("linear-probe")
    assert set(stored) == {"id", "clean", *(f"{n} {s}" for n in FEW["corruptions"] for s in (1, 5))}
    assert probe.headline == "top1"


def test_the_clean_error_is_the_probes(ran, make_backbone, context):
    predictions, data, chosen = ran(images=None)
    probe = find_task("linear-probe")
    outcome = probe.run(make_backbone(), data, probe.recipe(), context)
    top1 = probe.measure(outcome.predictions, data).scores(np.ones(50))["top1"]
    assert find_task("corruptions").measure(predictions, data).scores(np.ones(50))["clean_error"] == pytest.approx(
        100 - top1
    )
    assert chosen == outcome.chosen


def test_the_reference_is_a_backbone_under_the_same_protocol(ran, make_backbone, monkeypatch):
    task = find_task("corruptions")
    monkeypatch.setattr("backbench.tasks.ood.corruptions.load_backbone", lambda name, device: make_backbone(int(name)))
    predictions, data, chosen = ran(0, reference="3")
    alone, _, _ = ran(3)
    for column, values in alone.items():
        np.testing.assert_array_equal(values, predictions[column if column == "id" else f"reference {column}"])
    assert len(chosen["reference_weights"]) == 64
    ours, theirs = (task.measure(p, data).scores(np.ones(50)) for p in ({**predictions}, alone))
    ratio = [100 * ours[f"error:{n}"] / theirs[f"error:{n}"] for n in FEW["corruptions"]]
    assert ours["mce"] == pytest.approx(np.mean(ratio))
    rises = [theirs[f"error:{n}"] - theirs["clean_error"] for n in FEW["corruptions"]]
    lost = [
        100 * (ours[f"error:{n}"] - ours["clean_error"]) / r
        for n, r in zip(FEW["corruptions"], rises, strict=True)
        if r > 0
    ]
    assert ours["relative_mce"] == pytest.approx(np.mean(lost))
    faultless = predictions | {n: data["test"].targets for n in predictions if n.startswith("reference ")}
    assert (
        not {"mce", "relative_mce"} & task.measure(faultless, data).scores(np.ones(50)).keys()
    )  # nothing to divide by
    same, data, _ = ran(3, reference="3")
    itself = task.measure(same, data).scores(np.ones(50))
    assert (itself["mce"], itself["relative_mce"]) == pytest.approx((100, 100))


def test_alexnets_published_errors_hold_for_imagenet_alone(ran):
    with pytest.raises(BadInput, match="measured on ImageNet's 1,000 classes"):
        ran(reference=PUBLISHED)
    assert tuple(ALEXNET) == COUNTED
    task, rng = find_task("corruptions"), np.random.default_rng(0)
    split = Split(np.zeros((40, 4, 4, 3), np.uint8), rng.integers(0, 1000, 40), "f")
    data = Dataset("wide", "classification", [str(i) for i in range(1000)], {"test": lambda: split})
    # Of the clean images 30 of 40 are right, of the corrupted ones 10 of 40.
    answer = {n: np.where(np.arange(40) < right, split.targets, -1) for n, right in (("clean", 30), ("rest", 10))}
    columns = {"id": np.array([str(i) for i in range(40)], object), "clean": answer["clean"]}
    columns |= {f"{name} {s}": answer["rest"] for name in COUNTED for s in SEVERITIES}
    found = task.measure(columns | {"reference": np.full(40, PUBLISHED, object)}, data).scores(np.ones(40))
    assert found["mce"] == pytest.approx(np.mean([100 * 75 / e for e in ALEXNET.values()]))
    assert found["relative_mce"] == pytest.approx(np.mean([100 * 50 / (e - ALEXNET_CLEAN) for e in ALEXNET.values()]))


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"corruptions": ["frog"]}, "did you mean 'fog'"),
        ({"severities": [6]}, "severities"),
        ({"corruptions": []}, "corruptions"),
        ({"images": 0}, "images"),
    ],
)
def test_recipes_that_make_no_sense(settings, said):
    with pytest.raises(BadInput, match=said):
        find_task("corruptions").recipe(settings)


def test_predictions_of_other_images_are_refused(ran):
    predictions, data, _ = ran()
    with pytest.raises(BadInput, match="predictions row 0 is for image"):
        find_task("corruptions").measure({n: np.roll(v, 1) for n, v in predictions.items()}, data)


def test_the_picture_shows_every_corruption_and_the_images(ran):
    predictions, data, _ = ran()
    figure = find_task("corruptions").picture(predictions, data)
    assert [axes.get_title() for axes in figure.axes[:3]] == ["noise", "weather", "digital"]
    line = next(l for l in figure.axes[1].get_lines() if l.get_label() == "fog")
    table = accuracy_table(predictions, np.asarray(data["test"].targets))
    assert list(line.get_ydata()) == [table["fog"][1], table["fog"][5]]
    shown = [inset.get_title() for axes in figure.axes[3:6] for inset in axes.child_axes]
    assert {"clean", "fog", "contrast", "gaussian-noise"} == set(shown)


@pytest.mark.slow
def test_on_digit_scenes_accuracy_goes_down_with_severity(context, digits):
    """A mini backbone on a few images: what corruption costs by severity, over those that cost anything."""
    task = find_task("corruptions")
    recipe = task.recipe({"corruptions": ["fog", "contrast", "brightness"], "severities": [1, 3, 5], "c": [0.1]})
    predictions = task.run(load_backbone("mini/cnn-supervised"), digits, recipe, context).predictions
    table = accuracy_table(predictions, np.asarray(digits["test"].targets))
    clean = table.pop("clean")[0]
    by_severity = np.array([list(one.values()) for one in table.values()]).mean(axis=0)
    assert clean > by_severity[0] > by_severity[1] > by_severity[2]
