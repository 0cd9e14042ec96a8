"""Snapshots of River models: signed, checked before anything is loaded, and loaded by an exact list of classes.

No other module loads a pickle from a topic. Three checks, in this order:

1. An HMAC-SHA256 over every byte; nothing else is looked at before it fits.
2. The header (`millstream.adapters.models.river_header`): declared pipeline, features, segments, library versions.
3. An unpickler that imports nothing. It knows the very objects that the declared pipeline is made of
   (`river_classes`) by name, and no other. What pickle would call by reference to make (bound methods,
   ``functools.partial``) is written as a persistent id instead, so that neither ``getattr`` nor ``partial`` is ever
   callable from a snapshot.

Layout: ``MSRS``, format (1 byte), signature (32 bytes), header length (4 bytes, big-endian), header, body (zlib).
"""

from __future__ import annotations

import functools
import hashlib
import hmac
import io
import os
import pickle
import secrets
import sys
import types
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from millstream.adapters.models.river_header import Header
from millstream.errors import Misconfigured, Refused

MAGIC: Final = b"MSRS"
FORMAT: Final = 1
_SIGNATURE: Final = 32
_HEAD: Final = len(MAGIC) + 1 + _SIGNATURE
_KEY_FILE: Final = "snapshot.key"
_KEY_BYTES: Final = 32
_DEPTH: Final = 10_000
"""pickle follows what is nested, such as trees, by recursion. Only Python 3.11 has a lower limit for that."""

Names = tuple[str, str]
"""Module and qualified name."""


def signing_key(configured: str | None, state_dir: Path) -> bytes:
    """Return the key that snapshots are signed with.

    Parameters
    ----------
    configured : str or None
        From the settings, at least 16 characters; the same for the learner and every scorer.
    state_dir : Path
        Without a configured key, one is made there, for its owner's eyes only, and kept.

    Raises
    ------
    Misconfigured
        If the key is too short, or the kept one is damaged or can be read by others.
    """
    if configured is not None:
        if len(configured.encode()) < 16:
            raise Misconfigured("MILLSTREAM_SNAPSHOT_KEY is shorter than 16 bytes: take `openssl rand -hex 32`")
        return configured.encode()
    path = state_dir / _KEY_FILE
    state_dir.mkdir(parents=True, exist_ok=True)
    fresh = state_dir / f"{_KEY_FILE}.{secrets.token_hex(8)}"
    if not path.exists():
        with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(secrets.token_bytes(_KEY_BYTES))
        try:
            os.link(fresh, path)  # of two processes that start together one wins, and both use its key
        except FileExistsError:
            pass
        finally:
            fresh.unlink()
    if path.stat().st_mode & 0o077:
        raise Misconfigured(f"{path} can be read by others, who could sign snapshots: chmod 600 it, or delete it")
    key = path.read_bytes()
    if len(key) != _KEY_BYTES:
        raise Misconfigured(f"{path} is damaged: delete it, and the learner learns again from the retained examples")
    return key


def seal(header: Header, models: object, allowed: Mapping[Names, object], key: bytes) -> bytes:
    """Return a signed snapshot of ``models``.

    Raises
    ------
    Refused
        If the state holds something that `unseal` would refuse.
    """
    text = header.to_json()
    payload = len(text).to_bytes(4, "big") + text + zlib.compress(to_bytes(models, allowed), 1)
    return MAGIC + bytes([FORMAT]) + _sign(payload, key) + payload


def read_header(snapshot: bytes, key: bytes) -> Header:
    """Return the header of a snapshot whose signature fits.

    Raises
    ------
    Refused
        If it is no snapshot, of another format, unsigned or tampered with.
    """
    return _open(snapshot, key)[0]


def unseal(snapshot: bytes, wanted: Header, allowed: Mapping[Names, object], key: bytes) -> tuple[Header, Any]:
    """Check a snapshot and load it.

    Parameters
    ----------
    wanted : Header
        What the running declaration would write; ``examples``, ``offsets`` and ``metrics`` do not matter.
    allowed : mapping of (module, qualified name) to object
        All that the state may refer to.

    Raises
    ------
    Refused
        Saying what does not fit and what to do about it.
    """
    header, body = _open(snapshot, key)
    found = header.mismatches(wanted)
    if found:
        raise Refused(f"online model snapshot is refused: {'; '.join(found)}")
    try:
        return header, from_bytes(zlib.decompress(body), allowed)
    except (zlib.error, pickle.UnpicklingError, EOFError, TypeError, ValueError, AttributeError, LookupError) as error:
        raise Refused(f"online model snapshot is refused: its body is no model state ({error})") from error


def to_bytes(models: object, allowed: Mapping[Names, object]) -> bytes:
    """Return state as bytes that `from_bytes` accepts.

    Raises
    ------
    Refused
        Naming what cannot be stored, or could not be loaded again.
    """
    data, _ = _write(models)
    from_bytes(data, allowed)  # what cannot be read back must not be what a restart depends on
    return data


def from_bytes(data: bytes, allowed: Mapping[Names, object]) -> Any:
    """Load state that refers to nothing but ``allowed``; Refused names the first thing that is not among them."""
    return _Reader(io.BytesIO(data), allowed).load()


def references(models: object) -> dict[Names, object]:
    """Return everything that the state of objects made in this very process refers to, by name.

    Raises
    ------
    Refused
        If it holds something that cannot be stored at all, such as a lambda.
    """
    data, functions = _write(models)
    recorder = _Recorder(io.BytesIO(data), functions)
    recorder.load()
    return {**functions, **recorder.seen}


def _write(models: object) -> tuple[bytes, dict[Names, object]]:
    file = io.BytesIO()
    writer = _Writer(file, protocol=5)
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(max(limit, _DEPTH))
    try:
        writer.dump(models)
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        raise Refused(f"the online model's state cannot be stored: {error}") from error
    except RecursionError as error:
        raise Refused("the online model's state cannot be stored: it is nested too deep; bound its trees") from error
    finally:
        sys.setrecursionlimit(limit)
    return file.getvalue(), writer.functions


class _Writer(pickle.Pickler):
    """Writes what pickle would have called by reference as persistent ids."""

    def __init__(self, file: io.BytesIO, protocol: int) -> None:
        super().__init__(file, protocol)
        self.functions: dict[Names, object] = {}

    def persistent_id(self, obj: Any) -> Any:
        if isinstance(obj, functools.partial):
            return "partial", obj.func, obj.args, obj.keywords
        if isinstance(obj, types.MethodType):
            return "method", obj.__self__, obj.__func__.__name__
        if isinstance(obj, types.FunctionType | types.BuiltinFunctionType):
            if "<" in obj.__qualname__:
                raise pickle.PicklingError(f"{obj.__module__}.{obj.__qualname__} has no name: declare it with `def`")
            self.functions[obj.__module__, obj.__qualname__] = obj
            return "function", obj.__module__, obj.__qualname__
        return None


class _Reader(pickle.Unpickler):
    """Looks names up among what is allowed; imports nothing."""

    def __init__(self, file: io.BytesIO, allowed: Mapping[Names, object]) -> None:
        super().__init__(file)
        self._allowed = allowed

    def find_class(self, module: str, name: str) -> Any:
        try:
            return self._allowed[module, name]
        except KeyError:
            raise Refused(
                f"online model snapshot is refused: {module}.{name} is no part of the declared pipeline. If that "
                "pipeline's state may hold it, list it as `state_classes` in the declaring file"
            ) from None

    def persistent_load(self, pid: Any) -> Any:
        match pid:
            case ("function", str(module), str(name)):
                return self.find_class(module, name)
            case ("method", owner, str(name)) if isinstance(_function(type(owner), name), types.FunctionType):
                return types.MethodType(_function(type(owner), name), owner)
            case ("partial", made, tuple(args), dict(keywords)) if any(made is each for each in self._allowed.values()):
                return functools.partial(made, *args, **keywords)
        raise Refused(f"online model snapshot is refused: it refers to {str(pid)[:200]}, which no River model does")


class _Recorder(_Reader):
    """Reads bytes that this process has just written, and notes the names in them."""

    def __init__(self, file: io.BytesIO, functions: Mapping[Names, object]) -> None:
        super().__init__(file, {})
        self.seen: dict[Names, object] = dict(functions)

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in self.seen:
            self.seen[module, name] = pickle.Unpickler.find_class(self, module, name)
            self._allowed = self.seen
        return self.seen[module, name]


def _function(owner: type, name: str) -> Any:
    """Return a method that the class declares under a name that is not Python's own, or None."""
    if name.startswith("__"):
        return None
    for each in owner.__mro__:
        if name in vars(each):
            found = vars(each)[name]
            return found.__func__ if isinstance(found, classmethod) else found
    return None


def _sign(payload: bytes, key: bytes) -> bytes:
    return hmac.digest(key, MAGIC + bytes([FORMAT]) + payload, hashlib.sha256)


def _open(snapshot: bytes, key: bytes) -> tuple[Header, bytes]:
    if len(snapshot) < _HEAD + 4 or snapshot[: len(MAGIC)] != MAGIC:
        raise Refused("online model snapshot is refused: unsigned, or no snapshot at all; only the learner writes them")
    if snapshot[len(MAGIC)] != FORMAT:
        raise Refused(
            f"online model snapshot is refused: format {snapshot[len(MAGIC)]}, this version reads {FORMAT}; run the "
            "same version of Millstream for the learner and the scorers"
        )
    payload = snapshot[_HEAD:]
    if not hmac.compare_digest(snapshot[len(MAGIC) + 1 : _HEAD], _sign(payload, key)):
        raise Refused(
            "online model snapshot is refused: tampered with, or signed with another key. If MILLSTREAM_SNAPSHOT_KEY "
            "was changed, or learner and scorer have state directories of their own, give both the same key; if not, "
            "find out who writes to the snapshots' topic"
        )
    length = int.from_bytes(payload[:4], "big")
    return Header.from_json(payload[4 : 4 + length]), payload[4 + length :]
