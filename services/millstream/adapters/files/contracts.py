"""The contracts on disk: ``{topic}.avsc``, one per topic."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from millstream.core.avro.schema import SchemaError
from millstream.core.contracts import Contract, completed, unfit
from millstream.errors import Misconfigured
from millstream.settings import Settings
from millstream.topology import LABELS

SUFFIX = ".avsc"
ENGINE_TOPICS = (
    "alerts",
    "alerts.actions",
    "dead-letters",
    "dead-letters.redriven",
    "examples",
    "labels",
    "models",
    "predictions",
    "quality",
    "scored",
)
"""Topics that the engine itself writes, and that of labels, whose fields it knows."""


def schemas_dir(settings: Settings) -> Path:
    """Return the folder of contracts: the setting's, else the one shipped in the wheel, else the checkout's.

    Raises
    ------
    Misconfigured
        If there is no such folder.
    """
    if settings.schemas_dir is None:
        return shipped_dir()
    if settings.schemas_dir.is_dir():
        return settings.schemas_dir
    raise Misconfigured(f"there is no folder {settings.schemas_dir}; set MILLSTREAM_SCHEMAS_DIR to yours")


def shipped_dir() -> Path:
    """Return the folder of contracts that came with Millstream: in the wheel, else in the checkout.

    Raises
    ------
    Misconfigured
        If neither is there.
    """
    package = Path(__file__).parents[2]
    for folder in (package / "_schemas", package.parents[1] / "schemas"):
        if folder.is_dir():
            return folder
    raise Misconfigured("the shipped contracts are gone; install Millstream again")


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
    """Return the contract of a topic of events or labels; of `ENGINE_TOPICS` the shipped one where the folder has none.

    Raises
    ------
    Misconfigured
        If there is none, it is wrong, or it does not say what key, event id and event time are.
    """
    path = schemas_dir(settings) / f"{topic}{SUFFIX}"
    if topic in ENGINE_TOPICS and not path.is_file():
        path = shipped_dir() / path.name
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

    A folder of one's own need not hold those of `ENGINE_TOPICS`: where it does not, the shipped ones are taken. One
    that it holds gets the fields with a default that were added to the shipped one since.

    Raises
    ------
    Misconfigured
        If the folder is missing or empty or one of them is wrong.
    """
    folder = schemas_dir(settings)
    own = {path.stem: path for path in folder.glob(f"*{SUFFIX}")}
    if not own:
        raise Misconfigured(f"there is no contract (*{SUFFIX}) in {folder}; set MILLSTREAM_SCHEMAS_DIR")
    shipped = {topic: shipped_dir() / f"{topic}{SUFFIX}" for topic in ENGINE_TOPICS}
    found = {topic: read_contract(path) for topic, path in sorted((shipped | own).items())}
    for topic in own.keys() & shipped.keys() - {LABELS}:  # which may be what events are read from
        found[topic] = completed(found[topic], read_contract(shipped[topic]))
    return found


def require_fit(settings: Settings, contracts: Mapping[str, Contract], events: str) -> None:
    """Refuse contracts of `ENGINE_TOPICS` that the engine cannot use in place of the shipped ones.

    Parameters
    ----------
    contracts : mapping of topic to contract
        As `load_all` returns them.
    events : str
        The topic that events are read from, whose contract is a team's own even if it is called like one of these.

    Raises
    ------
    Misconfigured
        Naming the file, each field that does not fit, and what to do.
    """
    for topic in set(ENGINE_TOPICS) - {events}:
        shipped = shipped_dir() / f"{topic}{SUFFIX}"
        faults = unfit(contracts[topic], read_contract(shipped))
        if faults:
            raise Misconfigured(
                f"{schemas_dir(settings) / shipped.name}: the engine reads and writes {topic!r}, and this contract "
                f"does not fit: {'; '.join(faults)}. Start from the shipped one, {shipped}, and add to it; or delete "
                "this file, and the shipped one is taken"
            )
