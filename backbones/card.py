"""The backbone card: everything that decides a backbone's features, and who it is."""

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from .reading import Strict, digest

Source = Literal["timm", "open_clip", "transformers", "torchvision", "diffusers", "mini", "python"]
Family = Literal["cnn", "vit", "hybrid", "mlp", "ssm", "diffusion"]
Method = Literal["supervised", "self-supervised", "vision-language", "generative", "depth", "random"]
Positive = Annotated[float, Field(gt=0)]
Pool = Literal["auto", "cls", "mean", "cls+mean", "map"]
Layout = Literal["NCHW", "NHWC"]
HUB_FOLDERS = {"transformers": "*", "diffusers": "*/*"}  # what decides a network lies so deep in a folder of its hub


class Input(Strict):
    """What the network expects to see: `size` in pixels, `mean` and `std` per RGB channel of an image in 0..1."""

    size: int = Field(ge=8, le=4096)
    mean: tuple[float, float, float]
    std: tuple[Positive, Positive, Positive]
    interpolation: Literal["nearest", "bilinear", "bicubic", "lanczos"] = "bicubic"
    crop: float = Field(default=1.0, gt=0, le=2, description="side of the centre crop over the resized shorter side")
    fit: Literal["crop", "squash"] = Field(default="crop", description="keep the aspect ratio and crop, or give it up")


class InputOverride(Strict):
    """`Input` with every key optional: what a card says; the rest is read from the library's own config."""

    size: int | None = Field(default=None, ge=8, le=4096)
    mean: tuple[float, float, float] | None = None
    std: tuple[Positive, Positive, Positive] | None = None
    interpolation: Literal["nearest", "bilinear", "bicubic", "lanczos"] | None = None
    crop: float | None = Field(default=None, gt=0, le=2)
    fit: Literal["crop", "squash"] | None = None

    def over(self, default: dict[str, Any]) -> Input:
        """These values, and `default`'s where a key is not given. Raises ValidationError if some stay unknown."""
        return Input.model_validate(default | self.model_dump(exclude_none=True))


class Pretraining(Strict):
    """How the weights came to be: method, data, and the number of images seen in it (if known)."""

    method: Method
    data: str | None = None


class Checkpoint(Strict):
    """A file of weights: a path beside the card, `hf://org/name/file[@revision]`, or an https URL."""

    path: str
    sha256: str | None = Field(default=None, pattern=r"^[0-9a-f]{64}$")


class BackboneCard(Strict):
    """A backbone as data. `folder` is where relative paths start; it is not part of the card's identity."""

    name: str = Field(default="", max_length=200)
    source: Source
    model: str = Field(max_length=300)
    model_args: dict[str, Any] = Field(default={})
    pretrained: bool = True
    checkpoint: Checkpoint | None = None
    key_map: dict[str, str | None] = Field(
        default={}, description="prefix in the file → in the network; null: left out"
    )
    init_seed: int = Field(default=0, ge=0, description="seed of random weights, where weights are random")
    input: InputOverride = InputOverride()
    pool: Pool = "auto"
    head: str | None = Field(default=None, description="python: the module that is the classifier, taken off")
    levels: tuple[str, ...] = Field(default=(), description="python: modules, or keys of the output, that are maps")
    layout: Layout | None = Field(default=None, description="python: of 4-d outputs, where it cannot be measured")
    family: Family | None = None
    pretraining: Pretraining | None = None
    license: str | None = None
    paper: str | None = None
    folder: Path = Field(default=Path("."), exclude=True)

    @model_validator(mode="before")
    @classmethod
    def _short_checkpoint(cls, data: Any) -> Any:
        if isinstance(data, dict) and isinstance(data.get("checkpoint"), str):
            data = data | {"checkpoint": {"path": data["checkpoint"]}}
        return data

    @model_validator(mode="after")
    def _plain(self):
        # A library may take an argument as leave to run code from a hub; only a file that the user names is run.
        for key, value in _leaves(self.model_args):
            if key == "trust_remote_code":
                raise ValueError(
                    "model_args: 'trust_remote_code' is refused, code from a hub is never run; "
                    "have a look at the code, save it and name it: `source: python`"
                )
            if not isinstance(value, (str, int, float, bool, type(None))):
                raise ValueError(
                    f"model_args: {key} is {type(value).__name__}; only texts, numbers, lists and mappings are read"
                )
        return self

    @model_validator(mode="after")
    def _declared(self):
        # The statistics that go with somebody's own weights cannot be guessed: a wrong guess is a wrong number.
        if (self.checkpoint or self.source == "python") and (self.input.mean is None or self.input.std is None):
            raise ValueError(
                "weights of your own need `input: {size: …, mean: […], std: […]}`: "
                "nobody can guess the normalisation they were trained with"
            )
        if self.source == "python" and self.input.size is None:
            raise ValueError("a python backbone needs `input.size`")
        if self.source != "python" and (self.head or self.levels or self.layout):
            raise ValueError("`head`, `levels` and `layout` are for `source: python`; other sources know their own")
        return self

    def identity(self) -> dict[str, Any]:
        """What decides the features, as JSON: names, licences and other descriptions left out, and where files lie."""
        keys = ("source", "model", "model_args", "pretrained", "key_map", "init_seed", "input", "pool")
        dumped = self.model_dump(mode="json", include={*keys, "head", "levels", "layout"})
        identity = {key: value for key, value in dumped.items() if value is not None}
        identity["input"] = self.input.model_dump(mode="json", exclude_none=True)
        if self.checkpoint:
            identity["checkpoint"] = self._checkpoint_identity(self.checkpoint)
        if files := self.files():
            identity["files"] = {name: file_digest(path) for name, path in files.items()}
            identity["model"] = Path(self.model).name
        return identity

    def public(self) -> dict[str, Any]:
        """The card as JSON for others to read: where files lie on this machine is left out."""
        card = self.model_dump(mode="json", exclude_defaults=True)
        if Path(self.model).is_absolute():
            card["model"] = Path(self.model).name
        if self.checkpoint and Path(self.checkpoint.path).is_absolute():
            card["checkpoint"]["path"] = Path(self.checkpoint.path).name
        return card

    def files(self) -> dict[str, Path]:
        """Local files that `model` stands for, by name: python code, a mini's weights, a folder in a hub's shape."""
        if self.source == "python":
            code = self.folder / self.model.rpartition(":")[0]
            return {path.relative_to(code.parent).as_posix(): path for path in _imported(code)}
        if self.source == "mini":
            root, pattern = Path(__file__).parent / "mini" / "weights", f"{self.model}.safetensors"
        elif self.source in HUB_FOLDERS:
            root, pattern = self.folder / self.model, HUB_FOLDERS[self.source]
        else:
            return {}
        kinds = (".json", ".txt", ".model", ".safetensors", ".bin")
        paths = (path for path in root.glob(pattern) if path.suffix in kinds)
        return {path.relative_to(root).as_posix(): path for path in sorted(paths)}

    @property
    def checkpoint_file(self) -> Path | None:
        """Where a local checkpoint should be; None for one far away, and where there is none."""
        if self.checkpoint is None or "://" in self.checkpoint.path:
            return None
        return self.folder / self.checkpoint.path

    def _checkpoint_identity(self, checkpoint: Checkpoint) -> str:
        # The same bytes are the same weights, whatever they are called and on whichever machine.
        local = self.checkpoint_file
        if local is None:
            return checkpoint.sha256 or checkpoint.path
        return file_digest(local) if local.is_file() else checkpoint.sha256 or local.name

    def digest(self) -> str:
        """sha256 of `identity()`: the part of a cell's id that names the backbone."""
        return digest(self.identity())


def _leaves(value: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    """Every mapping key and every plain value in `value`, each value with the key it stands under."""
    if isinstance(value, dict):
        for inner, item in value.items():
            yield str(inner), None
            yield from _leaves(item, str(inner))
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from _leaves(item, key)
    else:
        yield key, value


def _imported(path: Path) -> list[Path]:
    """A python file and the files beside it that it imports, and so on: all can change what its network computes."""
    import ast

    found = [path] if path.is_file() else []
    for file in found:  # grows as it goes
        try:
            nodes = list(ast.walk(ast.parse(file.read_bytes())))
        except (SyntaxError, ValueError):
            continue  # loading will tell the line
        names = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
        for node in nodes:
            if isinstance(node, ast.ImportFrom):  # `from . import blocks` has no module of its own
                names |= {node.module} if node.module else {alias.name for alias in node.names}
        for name in sorted({name.partition(".")[0] for name in names}):
            module, package = path.parent / f"{name}.py", path.parent / name
            beside = [module] if module.is_file() else sorted(package.rglob("*.py")) if package.is_dir() else []
            found += [other for other in beside if other not in found]
    return found


def file_digest(path: Path) -> str:
    """sha256 (hex) of a file's content."""
    import hashlib

    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
