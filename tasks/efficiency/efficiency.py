"""Efficiency: what a backbone costs on this device, from an image's pixels in memory to its embedding.

Throughput of the best of several batch sizes and of each; latency of single images; seconds to load it from files that
were read before; parameters, multiply-accumulates, and memory. Times are medians of rounds in which all of them take
turns after a warm-up, and rounds are what intervals resample, for what disturbs a machine lasts longer than a call.
Results of another device are another protocol: a board never has both in one column. Nothing else should run meanwhile.
"""

from dataclasses import asdict

import numpy as np
import psutil
import torch
from pydantic import Field, PositiveInt, field_validator
from torch import Tensor

from ...backbones import Backbone, load_backbone
from ...backbones.errors import BadInput, NotApplicable, Unavailable
from ..context import Context
from ..datasets import Split
from ..measure import Measure, estimate
from ..pictures import COLOURS, canvas
from ..predictions import Predictions
from ..task import Metric, Needs, Outcome, Scores, Task, TaskRecipe
from .memory import kept_for_backward, peak_bytes
from .timing import seconds_of, undisturbed

MiB = 2**20
NOISE = 0.8  # of the larger of two timings: on a busy machine the same takes two and three times as long
rate = Metric("images/s", 0.0, 1e7, noise=NOISE)
memory = Metric("MiB", 0.0, 1e7, higher_is_better=False)


class EfficiencyRecipe(TaskRecipe):
    """`batches`: sizes that throughput is measured at, ascending; `rounds`: how often all is timed, and `calls` of a
    single image in each; `warmup`: calls before anything counts; `high`: side in pixels at which memory is measured
    besides the backbone's own size, 448 is whole patches of 14, 16 and 32; `threads` of a CPU."""

    batches: tuple[PositiveInt, ...] = Field(default=(1, 4, 16, 64), min_length=1)
    rounds: int = Field(default=12, ge=2)
    calls: PositiveInt = 20
    warmup: PositiveInt = 3
    high: PositiveInt = 448
    threads: PositiveInt = 1

    @field_validator("batches")
    @classmethod
    def _ascending(cls, batches):
        if list(batches) != sorted(set(batches)):
            raise ValueError(f"give batch sizes in ascending order, each once, such as {sorted(set(batches))}")
        return batches


class Efficiency(Task):
    """`throughput` is the best of `throughput_…` at each batch size; `activation` is what autograd keeps of one image
    to train on it; `peak` the most that is alive while one passes, weights included; `high_peak` the same at `high`."""

    name, family, version = "efficiency", "efficiency", 1
    needs = Needs(data="classification", splits=("test",))
    scores = Scores(
        throughput=rate,
        latency_p50=Metric("ms", 0.0, 1e7, higher_is_better=False, noise=NOISE),
        latency_p95=Metric("ms", 0.0, 1e7, higher_is_better=False, noise=NOISE),
        load=Metric("s", 0.0, 1e6, higher_is_better=False, noise=NOISE),
        parameters=Metric("M", 0.0, 1e7, higher_is_better=False),
        macs=Metric("G", 0.0, 1e7, higher_is_better=False),
        activation=memory,
        peak=memory,
        high_peak=memory,
        **{"throughput_*": rate},
    )
    Recipe = EfficiencyRecipe

    def run(self, backbone, data, recipe, context):
        backbone.to(context.device).eval()
        busy = psutil.getloadavg()[0]
        with undisturbed(recipe.threads):
            constants = counted(backbone, pictures(backbone, data["test"], 1, context), recipe.high, context.device)
            timings, batches = timed(backbone, data["test"], recipe, context)
        constant = {name: np.full(recipe.rounds, value) for name, value in constants.items()}
        sizes = np.tile(np.array(batches, np.int64), (recipe.rounds, 1))
        chosen = {"batches": batches, "threads": recipe.threads, "load_average": round(busy, 2)}
        return Outcome(timings | {"batch": sizes} | constant, chosen)

    def measure(self, predictions, data):
        check(predictions)
        sizes, calls = predictions["batch"][0], predictions["latency"].shape[1]
        units = {"parameters": 1e6, "macs": 1e9, "activation": MiB, "peak": MiB, "high_peak": MiB}
        constant = {name: float(predictions[name][0]) / unit for name, unit in units.items() if name in predictions}

        def scores(weights: np.ndarray) -> dict[str, float]:
            rates = [float(n / middle(of, weights)) for n, of in zip(sizes, predictions["seconds"].T, strict=True)]
            single, often = 1e3 * predictions["latency"].ravel(), np.repeat(weights, calls)
            found = {"throughput": max(rates)}
            found |= {f"latency_p{round(100 * q)}": middle(single, often, q) for q in (0.5, 0.95)}
            if "load" in predictions:
                found["load"] = middle(predictions["load"], weights)
            return found | constant | {f"throughput_{n}": of for n, of in zip(sizes, rates, strict=True)}

        return Measure(len(predictions["latency"]), scores)

    def picture(self, predictions, data):
        """Throughput by batch size with intervals, and how the latencies of single images are spread."""
        from matplotlib.ticker import LogLocator

        found = estimate(self.measure(predictions, data))
        sizes, milliseconds = predictions["batch"][0], 1e3 * predictions["latency"].ravel()
        figure, (curve, spread) = canvas(1, 2, (4.8, 3.6))
        points = [found[f"throughput_{n}"] for n in sizes]
        values, low, high = (np.array([getattr(p, key) for p in points]) for key in ("value", "low", "high"))
        curve.errorbar(
            sizes, values, (values - low, high - values), fmt="-o", capsize=3, markersize=4, color=COLOURS[0]
        )
        curve.set_xscale("log", base=2)
        curve.set_xticks(sizes, [str(n) for n in sizes])
        curve.minorticks_off()
        curve.set(title="Throughput", xlabel="images a batch", ylabel="images / s", ylim=(0, None))
        spread.ecdf(milliseconds, color=COLOURS[0])
        for name, share, colour in (("latency_p50", 50, COLOURS[2]), ("latency_p95", 95, COLOURS[1])):
            told = found[name]
            spread.axvspan(told.low, told.high, color=colour, alpha=0.2, linewidth=0)
            spread.axvline(told.value, color=colour, label=f"p{share}: {told.value:.3g} ms")
        spread.set_xscale("log")
        spread.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        spread.xaxis.set_major_formatter("{x:g}")
        spread.minorticks_off()
        spread.set(title="Latency of one image", xlabel="ms", ylabel="share of calls as fast", ylim=(0, 1.01))
        spread.legend(loc="lower right")
        figure.suptitle(told_costs(found, predictions))
        return figure


def timed(
    backbone: Backbone, split: Split, recipe: EfficiencyRecipe, context: Context
) -> tuple[Predictions, list[int]]:
    """Seconds by round: `latency` (rounds, calls), `seconds` (rounds, B), `load` (rounds,) where the backbone can be
    loaded anew; and the B batch sizes that fit into memory."""
    device, all_images = context.device, pictures(backbone, split, recipe.batches[-1], context)

    @torch.inference_mode()
    def embed(count: int) -> Tensor:
        found = backbone(all_images[:count]).embedding
        assert found is not None
        return found

    def load() -> Backbone:
        return load_backbone(backbone.card, device, **asdict(backbone.loading))

    fits = []
    for count in recipe.batches:
        try:
            for _ in range(recipe.warmup):
                embed(count)
        except torch.OutOfMemoryError:
            break
        fits.append(count)
    if not fits:
        raise Unavailable(f"{backbone.name}: {recipe.batches[0]} images do not fit into the memory of {device}")
    loads, found = is_loaded_by(load, backbone), {"latency": [], "seconds": [], "load": []}
    for round in range(recipe.rounds):
        found["latency"].append([seconds_of(lambda: embed(1), device) for _ in range(recipe.calls)])
        found["seconds"].append([seconds_of(lambda n=count: embed(n), device) for count in fits])
        if loads:
            found["load"].append(seconds_of(load, device))
        context.progress(f"timing {backbone.name}", round + 1, recipe.rounds)
    context.images += (recipe.rounds + recipe.warmup) * sum(fits) + recipe.rounds * recipe.calls
    return {name: np.array(values) for name, values in found.items() if values}, fits


def is_loaded_by(load, backbone: Backbone) -> bool:
    """Whether it is the very backbone that is loaded: one that was built in Python may have other weights, or no card
    that anything can be loaded from."""
    try:
        return load().weights_digest == backbone.weights_digest
    except (BadInput, NotApplicable, Unavailable):
        return False


def counted(backbone: Backbone, image: Tensor, high: int, device: str) -> dict[str, int]:
    """What is counted and not timed; without what cannot be: memory at a size that the network does not take."""
    found = {"parameters": backbone.parameters_count, "size": backbone.input.size, "high": high}
    if backbone.macs is not None:
        found["macs"] = backbone.macs
    large = torch.nn.functional.interpolate(image, (high, high), mode="bilinear")
    calls = {
        "activation": lambda: kept_for_backward(backbone, lambda: backbone(image).embedding),
        "peak": lambda: peak_bytes(backbone, lambda: backbone(image).embedding, device),
        "high_peak": lambda: peak_bytes(backbone, lambda: backbone(large).embedding, device),
    }
    for name, call in calls.items():
        try:
            found[name] = call()
        except (NotApplicable, torch.OutOfMemoryError):
            continue
    return found


def pictures(backbone: Backbone, split: Split, count: int, context: Context) -> Tensor:
    """(count, 3, S, S) the first images of a split, again from the first where it has fewer, ready on the device."""
    pixels = [backbone.transform.pixels(split.images[i]) for i in range(min(count, len(split)))]
    repeated = torch.stack(pixels)[torch.arange(count) % len(pixels)]
    return backbone.transform.normalise(repeated.to(context.device))


def middle(values: np.ndarray, weights: np.ndarray, share: float = 0.5) -> float:
    """The value (one of them) that this share of the weight does not exceed; the median."""
    return float(np.quantile(values, share, weights=weights, method="inverted_cdf"))


def check(predictions: Predictions) -> None:
    """Raises BadInput where a round is no timing of the same network as the others."""
    for name in ("latency", "seconds", "load"):
        if name in predictions and not ((predictions[name] > 0) & np.isfinite(predictions[name])).all():
            raise BadInput(f"predictions: {name}: holds what are no seconds; run the task again")
    for name in ("batch", "parameters", "macs", "activation", "peak", "high_peak"):
        if name in predictions and ((rows := predictions[name]) != rows[0]).any():
            raise BadInput(f"predictions: {name}: differs from round to round; run the task again")
        if name in predictions and (predictions[name] < 0).any():
            raise BadInput(f"predictions: {name}: is less than nothing; run the task again")
    if predictions["seconds"].shape != predictions["batch"].shape or not (predictions["batch"] > 0).all():
        raise BadInput("predictions: batch: is not the sizes that `seconds` are of; run the task again")


def told_costs(found, predictions: Predictions) -> str:
    """The figures that are no times, in a line."""
    parts = [f"{found['parameters'].value:.3g} M parameters"]
    if "macs" in found:
        parts.append(f"{found['macs'].value:.3g} G multiply-accumulates")
    for name, side in (("peak", "size"), ("high_peak", "high")):
        if name in found:
            parts.append(f"{found[name].value:.3g} MiB at most at {predictions[side][0]} px")
    return " · ".join(parts)
