"""Whether a project's topics may hold duplicates, as recorded on the cluster.

What is written at least once may be there twice, and stays so when the project writes exactly once afterwards. So the
project records that it has written at least once; from then on all of its stages look for repeated records.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from confluent_kafka.admin import AdminClient

from millstream.adapters.kafka.client import client_logger, read_committed
from millstream.adapters.kafka.groups import require_stopped
from millstream.adapters.kafka.producer import write_rows
from millstream.adapters.kafka.topic_registry import REGISTRY
from millstream.errors import Misconfigured
from millstream.topology import Topology

_KEY: Final = b"#at-least-once/"


def may_repeat(kafka: Mapping[str, str], topology: Topology, exactly_once: bool) -> bool:
    """Return whether topics of the project may hold records repeatedly; records it before the first is written.

    Parameters
    ----------
    exactly_once : bool
        How this worker is about to write.

    Raises
    ------
    Misconfigured
        This worker would be the first to write at least once, and others run that do not look for repeated records.
    Retry, Stop
        The registry cannot be read or written.
    """
    key = _KEY + topology.project.encode()
    if _recorded(kafka, key):
        return True
    if exactly_once:
        return False
    try:
        admin = AdminClient({**kafka, "logger": client_logger})  # type: ignore[dict-item]
        require_stopped(admin, [topology.group(stage) for stage in topology.names])
    except Misconfigured as error:
        if _recorded(kafka, key):  # another worker was a moment faster
            return True
        raise Misconfigured(
            f"MILLSTREAM_GUARANTEE=at_least_once: workers of this project run exactly once and would count repeated "
            f"records ({error})"
        ) from error
    write_rows(kafka, REGISTRY, [(0, key, b"{}")])
    return True


def _recorded(kafka: Mapping[str, str], key: bytes) -> bool:
    return any(each.key() == key for part in read_committed(kafka, REGISTRY, 0, 0, None) for each in part)
