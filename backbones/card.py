"""The backbone card: everything that decides a backbone's features, and who it is."""

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from .reading import Strict, digest

Source = Literal["timm", "open_clip", "transformers", "torchvision", "diffusers", "mini", "python"]
Family = Literal["cnn", "vit", "hybrid", "mlp", "ssm", "diffusion"]
Method = Literal["supervised", "self-supervised", "vision-language", "generative", "depth", "random"]
Positive = Annotated[float, Field(gt=0)]
Pool = Literal["auto", "cls", "mean", "cls+mean", "map"]


class Input(Strict):
    """What the network expects to see: `size` in pixels, `mean` and `std` per RGB channel of an image in 0..1."""

    size: int = Field(ge=8, le=4096)
    mean: tuple[float, float, float]
    std: tuple[Positive, Positive, Positive]
    interpolation: Literal["nearest", "bilinear", "bicubic", "lanczos"] = "bicubic"
    crop: float = Field(default=1.0, gt=0, le=1, description="side of the centre crop over the resized shorter side")
    fit: Literal["crop", "squash"] = Field(default="crop", description="keep the aspect ratio and crop, or give it up")


class InputOverride(Strict):
    """`Input` with every key optional: what a card says; the rest is read from the library's own config."""

    size: int | None = Field(default=None, ge=8, le=4096)
    mean: tuple[float, float, float] | None = None
    std: tuple[Positive, Positive, Positive] | None = None
    interpolation: Literal["nearest", "bilinear", "bicubic", "lanczos"] | None = None
    crop: float | None = Field(default=None, gt=0, le=1)
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
    key_map: dict[str, str] = Field(default={})
    init_seed: int = Field(default=0, ge=0, description="seed of random weights, where weights are random")
    input: InputOverride = InputOverride()
    pool: Pool = "auto"
    head: str | None = Field(default=None, description="python: the module that is the classifier, taken off")
    levels: tuple[str, ...] = Field(default=(), description="python: modules whose outputs are the feature maps")
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
    def _declared(self):
        # The statistics that go with somebody's own weights cannot be guessed: a wrong guess is a wrong number.
        if (self.checkpoint or self.source == "python") and (self.input.mean is None or self.input.std is None):
            raise ValueError(
                "weights of your own need `input: {size: …, mean: […], std: […]}`: "
                "nobody can guess the normalisation they were trained with"
            )
        if self.source == "python" and self.input.size is None:
            raise ValueError("a python backbone needs `input.size`")
        if self.source != "python" and (self.head or self.levels):
            raise ValueError("`head` and `levels` are for `source: python`; other sources know their own")
        return self

    def identity(self) -> dict[str, Any]:
        """What decides the features, as JSON: names, licences and other descriptions left out."""
        keys = ("source", "model", "model_args", "pretrained", "checkpoint", "key_map", "init_seed", "input", "pool")
        identity = self.model_dump(mode="json", include={*keys, "head", "levels"}, exclude_none=True)
        files = self.files()
        if files:
            identity["files"] = {_name_in(f, self.folder): file_digest(f) for f in files}
            identity.pop("checkpoint", None)
        return identity

    def files(self) -> list[Path]:
        """Local files whose content decides the features: checkpoint, python code, a mini's weights, a hub's folder."""
        found = []
        if self.source == "python":
            found += _imported(self.folder / self.model.rsplit(":", 1)[0])
        if self.source == "mini":
            found.append(Path(__file__).parent / "mini" / "weights" / f"{self.model}.safetensors")
        if self.source == "transformers":  # a local folder in the hub's shape
            found += sorted(f for f in (self.folder / self.model).glob("*") if f.suffix in (".json", ".safetensors"))
        if self.checkpoint and "://" not in self.checkpoint.path:
            found.append(self.folder / self.checkpoint.path)
        return [f for f in found if f.is_file()]

    def digest(self) -> str:
        """sha256 of `identity()`: the part of a cell's id that names the backbone."""
        return digest(self.identity())


def _name_in(path: Path, folder: Path) -> str:
    return path.relative_to(folder).as_posix() if path.is_relative_to(folder) else path.name


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
        names |= {node.module for node in nodes if isinstance(node, ast.ImportFrom) and node.module}
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
