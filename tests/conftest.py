"""The real servers, one of each for the whole run, in a state directory of its own; and no test is a race."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck
from hypothesis import settings as hypothesis

from millstream.adapters.embedded import endpoints
from millstream.adapters.embedded.endpoints import Endpoints
from millstream.settings import Settings, load_settings

# The developer's own endpoints must neither be used nor harmed.
for variable in [name for name in os.environ if name.startswith("MILLSTREAM_")]:
    del os.environ[variable]

# A machine that is busy says nothing of the code.
hypothesis.register_profile("untimed", deadline=None, suppress_health_check=[HealthCheck.too_slow])
hypothesis.load_profile("untimed")

_ELSEWHERE = {"kafka": {"bootstrap.servers": "127.0.0.1:1"}, "redis_url": "redis://127.0.0.1:1"}


@pytest.fixture(scope="session")
def stack_dir(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The state directory of the suite's servers, which end with the run."""
    directory = tmp_path_factory.mktemp("stack")
    yield directory
    endpoints.stop(Settings(state_dir=directory))


@pytest.fixture(scope="session")
def kafka(stack_dir: Path) -> Endpoints:
    """A real broker; use topic and group names of your own. ``redis_url`` leads nowhere: see `valkey`."""
    return endpoints.start(Settings(state_dir=stack_dir, redis_url=_ELSEWHERE["redis_url"]), print)


@pytest.fixture(scope="session")
def valkey(stack_dir: Path) -> Endpoints:
    """A real Valkey; use keys of your own and never flush it. ``kafka`` leads nowhere: see `kafka`."""
    return endpoints.start(Settings(state_dir=stack_dir, kafka=_ELSEWHERE["kafka"]), print)


@pytest.fixture
def stack(kafka: Endpoints, valkey: Endpoints, stack_dir: Path) -> Settings:
    """Settings under which both real servers are found; nothing else of the state directory is there."""
    assert kafka.kafka_embedded
    assert valkey.redis_embedded
    return load_settings({}, state_dir=stack_dir)
