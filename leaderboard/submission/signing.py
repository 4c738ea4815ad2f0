"""Who hands in: an Ed25519 key, made once in the home folder; what it signed nobody else can have changed."""

import os
from pathlib import Path
from typing import TYPE_CHECKING

from filelock import FileLock

from ...backbones.errors import BadInput, Unavailable

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

FILE = "submitter.key"


def key_of(home: Path) -> "Ed25519PrivateKey":
    """The key of a home folder, made on first use and readable by its owner alone. Raises BadInput, Unavailable."""
    ed25519 = _library()
    path = home / FILE
    home.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{path}.lock"):
        if not path.exists():
            fresh = ed25519.Ed25519PrivateKey.generate().private_bytes_raw()
            part = path.with_name(f"{FILE}.{os.getpid()}.part")
            part.unlink(missing_ok=True)
            with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
                file.write(fresh.hex())
            part.replace(path)
    try:
        return ed25519.Ed25519PrivateKey.from_private_bytes(bytes.fromhex(path.read_text().strip()))
    except (ValueError, OSError) as error:
        raise BadInput(f"{path}: not a key: {error}; restore it, or move it away and a new one is made") from None


def public(key: "Ed25519PrivateKey") -> str:
    """64 hex digits by which everybody knows the key."""
    return key.public_key().public_bytes_raw().hex()


def sign(key: "Ed25519PrivateKey", data: bytes) -> str:
    """128 hex digits; the same data, the same signature."""
    return key.sign(data).hex()


def signed(submitter: str, signature: str, data: bytes) -> bool:
    """Whether the owner of the public key `submitter` signed `data`."""
    from cryptography.exceptions import InvalidSignature

    try:
        key = _library().Ed25519PublicKey.from_public_bytes(bytes.fromhex(submitter))
        key.verify(bytes.fromhex(signature), data)
    except (InvalidSignature, ValueError):
        return False
    return True


def _library():
    try:
        from cryptography.hazmat.primitives.asymmetric import ed25519
    except ImportError as error:
        raise Unavailable(f"cryptography cannot be imported ({error}); pip install cryptography") from None
    return ed25519
