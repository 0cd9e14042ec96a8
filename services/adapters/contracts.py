"""The contracts on disk: ``{topic}.avsc``, one per topic."""

from __future__ import annotations

from pathlib import Path

import services
from services.core.contracts import Contract
from services.core.schema import SchemaError
from services.errors import Misconfigured
from services.settings import Settings

SUFFIX = ".avsc"


def schemas_dir(settings: Settings) -> Path:
    """Return the folder of contracts: the setting's, else the one shipped in the wheel, else the checkout's.

    Raises
    ------
    Misconfigured
        If there is no such folder.
    """
    package = Path(services.__file__).parent
    candidates = [package / "_schemas", package.parent / "schemas"]
    if settings.schemas_dir is not None:
        candidates = [settings.schemas_dir]
    for folder in candidates:
        if folder.is_dir():
            return folder
    raise Misconfigured(f"there is no folder {candidates[-1]}; set MILLSTREAM_SCHEMAS_DIR to the folder of contracts")


def read_contract(path: Path) -> Contract:
    """Read one contract.

    Raises
    ------
    Misconfigured
        Naming the file, the field and what is allowed.
    """
    try:
        return Contract.parse(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        there = ", ".join(sorted(each.stem for each in path.parent.glob(f"*{SUFFIX}"))) or "none"
        raise Misconfigured(
            f"topic {path.stem!r} has no contract {path}; write one, or use one of these topics: {there}"
        ) from error
    except (SchemaError, UnicodeDecodeError) as error:
        raise Misconfigured(f"{path}: {error}") from error


def load_contract(settings: Settings, topic: str) -> Contract:
    """Return the contract of an event topic.

    Raises
    ------
    Misconfigured
        If there is none, it is wrong, or it does not say what key, event id and event time are.
    """
    path = schemas_dir(settings) / f"{topic}{SUFFIX}"
    contract = read_contract(path)
    lacking = [role for role in ("key", "event_id", "event_time") if not getattr(contract, role)]
    if lacking:
        raise Misconfigured(
            f'{path}: events need {", ".join(lacking)}; add "millstream": {{"key": ..., "event_id": ..., '
            '"event_time": ...}, each naming a field'
        )
    return contract


def load_all(settings: Settings) -> dict[str, Contract]:
    """Return every contract by topic, in order of the topics' names.

    Raises
    ------
    Misconfigured
        If the folder is missing or empty or one of them is wrong.
    """
    folder = schemas_dir(settings)
    contracts = {path.stem: read_contract(path) for path in sorted(folder.glob(f"*{SUFFIX}"))}
    if not contracts:
        raise Misconfigured(f"there is no contract (*{SUFFIX}) in {folder}; set MILLSTREAM_SCHEMAS_DIR")
    return contracts
