"""Where predictions of a result are: in the folder of its run, or kept under the digest of their bytes."""

import os
import shutil
from pathlib import Path

from ...backbones.card import file_digest
from ..result import Result


def predictions_file(home: Path, result: Result) -> Path | None:
    """The file that a result was scored from, its bytes compared with the record's digest; None where it is gone."""
    digest = result.predictions.sha256
    for path in (home / result.predictions.path, kept_at(home, digest)):
        if path.is_file() and file_digest(path) == digest:
            return path
    return None


def kept_at(home: Path, digest: str) -> Path:
    """Where predictions of a submission are kept."""
    return home / "predictions" / f"{digest}.parquet"


def weights_at(home: Path, digest: str) -> Path:
    """Where weights of a submission are kept, if it brought any."""
    return home / "weights" / f"{digest}.safetensors"


def keep(source: Path, target: Path, digest: str) -> Path | None:
    """Copy a file to where it is kept, whole or not at all; the path if it was not there before."""
    if target.is_file() and file_digest(target) == digest:
        return None
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(f"{target.name}.{os.getpid()}.part")
    try:
        shutil.copyfile(source, part)
        if file_digest(part) != digest:
            raise OSError(f"{source} changed while it was copied")
        part.replace(target)
    finally:
        part.unlink(missing_ok=True)
    return target
