"""A model folder's signature, `model.sig`: who vouches for every byte in it.

Made with the OpenSSF model-signing format and an elliptic-curve key; nothing touches the network.
It covers every file of the folder, the registry and the manifest too: which members are for
production is what a forger would change first. So whatever changes the folder signs it anew.
"""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

from loso.errors import BadInput, MissingExtra, Refused
from loso.files import write_atomic
from loso.model.files import SIGNATURE_FILE

__all__ = ["check_signature", "require_key", "sign_folder"]

_LONGEST_REASON: Final = 200


def require_key(folder: Path, private_key: Path | None) -> None:
    """Refuse, as BadInput, a key that cannot sign, and to change a signed folder without one."""
    path = folder / SIGNATURE_FILE
    if private_key is not None:
        _signer(private_key)
    elif path.exists():
        raise BadInput(
            "the folder is signed, and its signature would no longer hold",
            where=str(path),
            fix="give --sign KEY, or remove the signature",
        )


def sign_folder(folder: Path, private_key: Path) -> None:
    """Write `model.sig`: all files of `folder`, signed with a PEM key of P-256, P-384 or P-521.

    BadInput where the key cannot be used, MissingExtra without model-signing.
    """
    config = _signer(private_key)
    config.set_hashing_config(_hashing(folder))
    try:
        with write_atomic(folder / SIGNATURE_FILE) as temporary:
            config.sign(folder, temporary)
    except ValueError as error:
        raise BadInput(f"cannot be signed ({error})", where=str(folder)) from None


def check_signature(folder: Path, public_key: Path) -> None:
    """Refuse a folder that is not, file by file, what the owner of `public_key` signed.

    BadInput where the key cannot be used, MissingExtra without model-signing.
    """
    path = folder / SIGNATURE_FILE
    config = _package("verifying").Config()
    try:
        config.use_elliptic_key_verifier(public_key=public_key)
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise _bad_key(public_key, error) from None
    if not path.is_file():
        raise Refused("no signature", where=str(path), fix="sign the folder: loso export --sign")
    config.set_hashing_config(_hashing(folder))
    try:
        config.verify(folder, path)
    except Exception as error:  # noqa: BLE001 (the package raises its dependencies' own classes)
        reason = (str(error) or type(error).__name__)[:_LONGEST_REASON]
        raise Refused(f"the signature does not hold ({reason})", where=str(path)) from None


def _signer(private_key: Path) -> Any:
    config = _package("signing").Config()
    try:
        return config.use_elliptic_key_signer(private_key=private_key)
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise _bad_key(private_key, error) from None


def _hashing(folder: Path) -> Any:
    """Return how a folder is hashed: all files, the signature and dot files apart."""
    ignored = [SIGNATURE_FILE, *(path.name for path in folder.glob(".*"))]
    return _package("hashing").Config().set_ignored_paths(paths=ignored, ignore_git_paths=False)


def _package(module: str) -> Any:
    if find_spec("model_signing") is None:
        raise MissingExtra(
            "signatures need the package model-signing", fix="pip install 'loso[sign]'"
        )
    return import_module(f"model_signing.{module}")


def _bad_key(path: Path, error: Exception) -> BadInput:
    return BadInput(
        f"not a key that can be used ({error})",
        where=str(path),
        expected="a PEM file with an elliptic-curve key: P-256, P-384 or P-521",
    )
