"""Signed files: what is read by running it, which therefore only its writer may have written.

A snapshot of a PyTorch agent is a pickle, and reading a pickle runs code. So each is signed with a
key of the user (HMAC with SHA-256), and one with another signature is not read. The key is in a
file that only the user may read; worker processes on other machines are given it by the process
that starts them.

    REGROW-SIGNED-1 | length of the label (4 bytes) | label | signature (32 bytes) | content
"""

import hashlib
import hmac
import os
import secrets
from functools import cache
from pathlib import Path

from regrow.errors import RegrowError
from regrow.files.atomic import create_atomically, damaged
from regrow.files.places import Place, reaching

_MAGIC = b"REGROW-SIGNED-1"
KEY = "REGROW_KEY"
"""The environment variable with the key, in hexadecimal digits; by default a file has it."""


def key() -> str:
    """The user's key in hexadecimal digits; it is made where there is none."""
    return os.environ.get(KEY) or _kept()


@cache
def _kept() -> str:
    home = os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share"
    path = Path(home) / "regrow" / "key"
    if not path.is_file():
        before = os.umask(0o077)  # nobody else may read it
        try:
            create_atomically(path, secrets.token_hex(32).encode())
        finally:
            os.umask(before)
    return path.read_text("utf-8").strip()


def signed(content: bytes, label: str) -> bytes:
    """A file that holds `content`. `label`: what it belongs to."""
    about = label.encode()
    return b"".join(
        [_MAGIC, len(about).to_bytes(4, "big"), about, _signature(about, content), content]
    )


def read_signed(path: Place, label: str) -> bytes:
    """The content of a signed file.

    Raises `DamagedError` if it is not what was written, has another label, or was signed with
    another key.
    """
    with reaching(path, "read"):
        whole = path.read_bytes()
    if not whole.startswith(_MAGIC):
        raise damaged(path, "it is no snapshot of this version of regrow")
    start = len(_MAGIC) + 4
    end = start + int.from_bytes(whole[start - 4 : start], "big")
    about, signature, content = whole[start:end], whole[end : end + 32], whole[end + 32 :]
    if not hmac.compare_digest(signature, _signature(about, content)):
        raise damaged(path, "its signature is not that of your key")
    if about.decode() != label:
        raise damaged(path, f"it is the checkpoint of {about.decode()}, not of {label}")
    return content


def _signature(about: bytes, content: bytes) -> bytes:
    try:
        secret = bytes.fromhex(key())
    except ValueError as error:
        raise RegrowError(f"{KEY} must be hexadecimal digits") from error
    made = hmac.new(secret, len(about).to_bytes(4, "big") + about, hashlib.sha256)
    made.update(content)
    return made.digest()
