"""One training on mmengine's own Runner, by the plan, the checkpoints and the curve of every other training."""

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from math import isfinite
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch.utils.data import DataLoader

from ...backbones import Backbone, Unavailable
from ..context import Context
from ..threads import cores
from ..training import processes
from ..training.checkpoint import Checkpoints
from ..training.loop import Diverged, Plan, Trained, Trainee, kept, restored, standing, train
from ..training.optimisation import adamw, schedule
from ..training.pictures import Place, shuffled, steps_of
from ..training.plan import FOLDER, plan_of
from ..training.randomness import STEP, seed_all
from ..training.scenes import Scenes, Target
from .gate import installed, openmmlab

Hook: Any = openmmlab("mmengine.hooks").Hook
BaseRunner: Any = openmmlab("mmengine.runner").Runner
UNUSED = ("runtime_info", "timer", "sampler_seed", "logger", "param_scheduler", "checkpoint")  # mmengine's usual hooks
NAME = "backbench"  # of what mmengine keeps by name
SCALE = 512.0  # of the loss in half precision at first, as in Battle of the Backbones

Pack = Callable[[Target, int], Any]
"""A scene's target, and the side of its picture in pixels → it as mmdet or mmseg has it."""


class Samples(torch.utils.data.Dataset):
    """Scenes as the libraries take them: by place the pixels (3, S, S) uint8, and their target packed."""

    def __init__(self, scenes: Scenes, pack: Pack):
        self.scenes, self.pack = scenes, pack

    def __getitem__(self, place: Place) -> dict[str, Any]:
        pixels, target = self.scenes[place]
        return {"inputs": pixels, "data_samples": self.pack(target, pixels.shape[-1])}


class Order:
    """Places of an epoch, in the order of every training; each batch in `parts`, which count the same."""

    epoch = 0

    def __init__(self, scenes: Scenes, plan: Plan, parts: int):
        self.scenes, self.plan, self.parts = scenes, plan, parts

    def __len__(self) -> int:
        return self.plan.steps * self.parts

    def __iter__(self) -> Iterator[list[Place]]:
        epochs = range(self.epoch, self.epoch + 1)
        for batch in shuffled(self.scenes.rows, self.plan.batch, self.scenes.seed, epochs, even=False):
            for part in range(self.parts):
                # The last batch may have fewer pictures than parts.
                yield batch[part :: self.parts] or [batch[part % len(batch)]]


class RunnerTrainee(Trainee):
    """A model of mmdet or mmseg in training on scenes; `score(model)`: validation scores by name."""

    def __init__(
        self,
        config: Callable[[], dict[str, Any]],
        scenes: Scenes,
        pack: Pack,
        rate: float,
        context: Context,
        score: Callable[[Any], dict[str, float]],
    ):
        recipe = scenes.recipe
        seed_all(context.seed)
        with nothing_left_behind():
            self.model: Any = openmmlab("mmengine.registry").MODELS.build(config())
            self.model.init_weights()
        self.model.to(context.device)
        self.model.dropping = self.model.backbone.dropping
        self.recipe, self.scenes, self.pack, self.score = recipe, scenes, pack, score
        self.optimizer = adamw(self._groups(recipe.layer_decay, recipe.weight_decay), rate)
        self.schedule = schedule(recipe, self.optimizer, steps_of(scenes.rows, recipe.batch))

    def _groups(self, layer_decay: float, weight_decay: float) -> list[dict[str, Any]]:
        network = self.model.backbone.network
        own = {id(p) for p in network.parameters()}
        rest = [p for p in self.model.parameters() if id(p) not in own]
        groups = network.parameter_groups(layer_decay, weight_decay) if not self.model.backbone.frozen else []
        return [*groups, {"params": rest, "weight_decay": weight_decay}]

    @torch.no_grad()
    def validate(self) -> dict[str, float]:
        """What `score` gives."""
        return self.score(self.model)


class Keeper(Hook):
    """At mmengine's steps and epochs does what our own loop does at its: random numbers, rates, checkpoint, curve."""

    def __init__(self, trainee: RunnerTrainee, plan: Plan, micro: int, folder: Path, context: Context):
        self.trainee, self.plan, self.context = trainee, plan, context
        self.store = Checkpoints(folder, plan.made_of)
        self.first, state = restored(self.store, trainee)
        self.curve, self.scaler = state.get("curve", []), state.get("scaler", {})
        self.micro = min(micro, state.get("micro_batch", micro))  # memory that was once too small stays so
        self.parts = -(-plan.batch // self.micro)

    def before_train_epoch(self, runner: Any) -> None:
        """Its own order of pictures."""
        runner.train_dataloader.batch_sampler.epoch = runner.epoch
        self.losses: list[float] = []

    def before_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None) -> None:
        """Random numbers and learning rates of the step."""
        if batch_idx % self.parts == 0:
            step = runner.iter // self.parts
            seed_all(self.context.seed, STEP, step)
            self.trainee.schedule.step_update(step)

    def after_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        """Tells how far it is. Raises Diverged."""
        plan, epoch, step = self.plan, runner.epoch + 1, runner.iter // self.parts + 1
        loss = outputs["loss"].item()
        if not isfinite(loss):
            raise Diverged.at(plan, step, loss)
        self.losses.append(loss)
        self.context.images += len(data_batch["inputs"])
        if (batch_idx + 1) % self.parts == 0:
            loss = sum(self.losses[-self.parts :]) / self.parts
            self.context.progress(standing(plan, epoch, loss, self.curve), step, plan.epochs * plan.steps)

    def after_train_epoch(self, runner: Any) -> None:
        """Validation, a line of the curve, a checkpoint."""
        trainee, plan, epoch = self.trainee, self.plan, runner.epoch + 1
        trainee.model.eval()
        loss = sum(self.losses) / len(self.losses)
        row = {"epoch": epoch, "step": epoch * plan.steps, "loss": loss, "micro_batch": self.micro}
        scaler = getattr(runner.optim_wrapper, "loss_scaler", torch.amp.GradScaler("cpu", enabled=False))
        self.curve = kept(self.store, trainee, [*self.curve, row], scaler, last=epoch == plan.epochs)


class Runner(BaseRunner):
    """mmengine's, in this process as it is: it changes no settings of the process, and keeps no log of its own."""

    def __init__(self, keeper: Keeper, device: str, **settings: Any):
        self.keeper, self.device = keeper, device
        hooks = dict.fromkeys(UNUSED)
        super().__init__(**settings, default_hooks=hooks, custom_hooks=[keeper])

    def setup_env(self, env_cfg: Any) -> None:
        """One process; its name is no time of day."""
        self._rank, self._world_size, self._timestamp = 0, 1, NAME

    def build_logger(self, **_: Any) -> Any:
        """The one that tells of errors only."""
        return openmmlab("mmengine.logging").MMLogger.get_instance(NAME)

    def _log_env(self, env_cfg: Any) -> None:
        """It would start compilers to ask for their versions."""

    def wrap_model(self, model_wrapper_cfg: Any, model: Any) -> Any:
        """On the device that was asked for."""
        return model.to(self.device)

    def load_or_resume(self) -> None:
        """The keeper has put the weights back; this is where they stand."""
        self._train_loop._epoch = self.keeper.first
        self._train_loop._iter = self.keeper.first * len(self.train_dataloader)


def train_on_runner(
    backbone: Backbone,
    config: Callable[[], dict[str, Any]],
    scenes: Scenes,
    pack: Pack,
    rate: float,
    context: Context,
    score: Callable[[Any], dict[str, float]],
    made_of: Any,
) -> Trained:
    """A model of mmdet or mmseg trained at one rate, from where a former run left it; asked for again, it is read back.

    `config()`: of the model, with our backbone as `backbone`; the others are as for `train_dense`.
    Raises Diverged, NotApplicable, Unavailable.
    """
    if processes.count() > 1:
        raise Unavailable("mmdet and mmseg train in one process here; launch one, or leave `engine` out")
    recipe, data = scenes.recipe, [scenes.split.fingerprint, made_of, installed()]
    plan = plan_of(backbone, recipe, rate, steps_of(scenes.rows, recipe.batch), context, data)
    make = partial(RunnerTrainee, config, scenes, pack, rate, context, score)
    return train(make, plan, context.folder / FOLDER / f"learning-rate-{rate:g}", context, _run)


def _run(trainee: RunnerTrainee, plan: Plan, micro: int, folder: Path, context: Context) -> Trained:
    keeper = Keeper(trainee, plan, micro, folder, context)
    if keeper.first < plan.epochs:
        on_gpu = torch.device(context.device).type != "cpu"
        batches = DataLoader(
            Samples(trainee.scenes, trainee.pack),
            batch_sampler=Order(trainee.scenes, plan, keeper.parts),  # pyright: ignore[reportArgumentType]
            num_workers=cores() if on_gpu else 0,
            collate_fn=openmmlab("mmengine.dataset").pseudo_collate,
        )
        with nothing_left_behind(), TemporaryDirectory() as folder_of_its_own:
            runner = Runner(
                keeper,
                context.device,
                model=trainee.model,
                work_dir=folder_of_its_own,
                train_dataloader=batches,
                train_cfg={"by_epoch": True, "max_epochs": plan.epochs},
                optim_wrapper=_optim_wrapper(trainee, plan, keeper, on_gpu),
                randomness={"seed": context.seed},
            )
            runner.train()
    trainee.model.eval()
    return Trained(trainee, keeper.curve)


def _optim_wrapper(trainee: RunnerTrainee, plan: Plan, keeper: Keeper, on_gpu: bool) -> Any:
    """mmengine's around our optimiser: it adds up the gradients of the parts and clips them; with AMP on a GPU."""
    optim = openmmlab("mmengine.optim")
    clip = {"max_norm": plan.clip_grad} if plan.clip_grad else None
    how = {"optimizer": trainee.optimizer, "accumulative_counts": keeper.parts, "clip_grad": clip}
    if plan.precision == "float32" or not on_gpu:
        return optim.OptimWrapper(**how)
    scale = {"init_scale": SCALE, "enabled": plan.precision == "float16"}
    wrapper = optim.AmpOptimWrapper(dtype=plan.precision, loss_scale=scale, **how)
    if keeper.scaler:
        wrapper.loss_scaler.load_state_dict(keeper.scaler)
    return wrapper


@contextmanager
def nothing_left_behind() -> Iterator[None]:
    """Inside, mmengine tells of errors only; what it keeps by name for the whole process is afterwards as it was."""
    logging = openmmlab("mmengine.logging")
    kinds = [openmmlab("mmengine.registry").DefaultScope, openmmlab("mmengine.visualization").Visualizer]
    held = [kind._instance_dict for kind in (*kinds, logging.MMLogger, logging.MessageHub)]
    before = [dict(instances) for instances in held]
    logging.MMLogger.get_instance(NAME, log_level="ERROR")
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "``build_loss``", UserWarning)  # mmseg's, of itself
            yield
    finally:
        for instances, old in zip(held, before, strict=True):
            instances.clear()
            instances.update(old)
