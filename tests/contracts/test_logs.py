"""What the log says, and what it must never say."""

import asyncio
import io
import json
import logging
from collections.abc import Iterator

import httpx2
import mode
import pytest

from millstream.adapters.telemetry.logs import configure_logs, secrets_of
from millstream.errors import Misconfigured
from millstream.settings import load_settings

logger = logging.getLogger("millstream.test")


@pytest.fixture(autouse=True)
def _root_as_before() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)


def logged(log_format: str, secrets: tuple[str, ...] = ()) -> io.StringIO:
    stream = io.StringIO()
    configure_logs(log_format, secrets=secrets, stream=stream)
    return stream


def test_json_is_one_object_a_line_with_extras_and_traceback() -> None:
    stream = logged("json")
    logger.warning("lag of %s\nrecords", 5, extra={"stage": "customer", "partition": 3})
    try:
        raise RuntimeError("broken")
    except RuntimeError:
        logger.exception("it failed")
    first, second = map(json.loads, stream.getvalue().splitlines())
    assert first["message"] == "lag of 5\nrecords"
    assert (first["level"], first["logger"], first["stage"], first["partition"]) == (
        "WARNING",
        "millstream.test",
        "customer",
        3,
    )
    assert first["time"].endswith("Z")
    assert "RuntimeError: broken" in second["error"]


def test_configuring_again_replaces() -> None:
    old = logged("human")
    new = logged("human")
    logger.info("once")
    assert old.getvalue() == ""
    assert new.getvalue().count("once") == 1


@pytest.mark.parametrize("log_format", ["human", "json"])
def test_secrets_are_struck_out(log_format: str) -> None:
    environ = {"MILLSTREAM_KAFKA_SASL_PASSWORD": 'tops"ecret', "MILLSTREAM_KAFKA_SASL_USERNAME": "alice"}
    settings = load_settings(
        environ, redis_url="rediss://bob:hunter2@redis:6379/0", schema_registry_user_info="carol:swordfish"
    )
    stream = logged(log_format, secrets_of(settings))
    logger.info("settings %s", settings)
    logger.info('a bare tops"ecret, hunter2 and swordfish', extra={"url": "redis://x:hunter2@h", "api_token": "abc123"})
    logger.info("amqp://dave:other@host and ssl.key.password = 'unknown one' end")
    try:
        raise ValueError("cannot reach rediss://bob:hunter2@redis:6379/0")
    except ValueError:
        logger.exception("no connection")
    text = stream.getvalue()
    for secret in ('tops"ecret', 'tops\\"ecret', "hunter2", "swordfish", "abc123", "other", "unknown one"):
        assert secret not in text
    assert "alice" in text
    assert "redis:6379/0" in text


def test_unknown_format_is_refused() -> None:
    with pytest.raises(Misconfigured, match="human, json"):
        configure_logs("xml")


def test_a_framework_is_heard_from_warnings_on_whatever_logger_it_uses() -> None:
    class Busy(mode.Service):
        async def on_start(self) -> None:
            logger.info("ours")
            self.log.warning("theirs")

    async def once() -> None:
        async with Busy():
            pass

    stream = logged("human")
    asyncio.run(once())
    assert [line.rpartition(": ")[2] for line in stream.getvalue().splitlines()] == ["ours", "theirs"]


def test_each_request_of_the_registry_client_is_no_news() -> None:
    stream = logged("human")
    with httpx2.Client(transport=httpx2.MockTransport(lambda _: httpx2.Response(200))) as client:
        client.get("http://registry/subjects")
    assert stream.getvalue() == ""


def test_what_a_client_repeats_is_written_now_and_then() -> None:
    stream = logged("human")
    client = logging.getLogger("librdkafka")
    for tenth_s in range(305):
        for text in ("FAIL [a]: refused", "GETPID [b]: loading"):
            record = client.makeRecord(client.name, logging.ERROR, "client.py", 1, text, (), None)
            record.created = 1000.0 + tenth_s / 10
            client.handle(record)
    lines = [line.partition("librdkafka: ")[2] for line in stream.getvalue().splitlines()]
    assert lines[:2] == ["FAIL [a]: refused", "GETPID [b]: loading"]
    assert lines[2:] == [f"{text} (and 99 more like it since)" for text in lines[:2]] * 3
