"""Health checks of Kafka, Redis and the schema registry, for ``millstream doctor``."""

from __future__ import annotations

import json
import time
from base64 import b64encode
from dataclasses import dataclass
from typing import Any, Literal
from urllib.error import HTTPError
from urllib.parse import unquote, urlsplit
from urllib.request import Request, urlopen

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import AdminClient
from confluent_kafka.admin._config import ConfigResource

from millstream.core.urls import without_credentials
from millstream.settings import Settings

Level = Literal["ok", "warn", "fail"]
_PATIENCE_S = 10.0
_LOOPBACK = ("127.", "localhost", "[::1]", "::1")
_KAFKA_ADVICE = {
    KafkaError._AUTHENTICATION: "the brokers refuse the credentials: check MILLSTREAM_KAFKA_SASL_MECHANISMS, "
    "_SASL_USERNAME and _SASL_PASSWORD, and that MILLSTREAM_KAFKA_SECURITY_PROTOCOL is what the listener expects",
    KafkaError._SSL: "TLS failed: check MILLSTREAM_KAFKA_SSL_CA_LOCATION and that the certificate names this host; "
    "if the listener is a plain one, unset MILLSTREAM_KAFKA_SECURITY_PROTOCOL",
    KafkaError._RESOLVE: "the host name is unknown: check MILLSTREAM_KAFKA_BOOTSTRAP_SERVERS",
    KafkaError.SASL_AUTHENTICATION_FAILED: "the brokers refuse the credentials: check MILLSTREAM_KAFKA_SASL_*",
}


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of a diagnosis.

    Parameters
    ----------
    check : str
        What was looked at, a word or two.
    level : "ok", "warn" or "fail"
        Whether Millstream can work with it.
    found : str
        What was found.
    advice : str
        What to do, "" if nothing.
    """

    check: str
    level: Level
    found: str
    advice: str = ""


def probe_kafka(settings: Settings, kafka: dict[str, str]) -> list[Finding]:
    """Reach the brokers; look at topics, security, and whether transactions can work there."""
    where = kafka["bootstrap.servers"]
    findings = _kafka_security(kafka)
    seen: list[KafkaError] = []
    watched: dict[str, Any] = {**kafka, "log_level": "0", "error_cb": seen.append}
    try:
        admin = AdminClient(watched)
    except KafkaException as error:
        advice = "a MILLSTREAM_KAFKA_* variable is no librdkafka setting, or has a wrong value"
        return [*findings, Finding("Kafka", "fail", error.args[0].str(), advice)]
    deadline = time.monotonic() + _PATIENCE_S
    while True:
        try:
            metadata = admin.list_topics(timeout=2.0)
            break
        except KafkaException as error:
            admin.poll(0.1)
            telling = next((e for e in seen if _kafka_advice(e)), None)
            if telling is None and time.monotonic() < deadline:
                continue
            problem: KafkaError = telling or (seen[0] if seen else error.args[0])
            advice = _kafka_advice(problem) or (
                "nothing answers there: is the broker up, is the port right, does the listener expect TLS?"
            )
            return [*findings, Finding("Kafka", "fail", f"{where}: {problem.str()}", advice)]
    topics = [name for name in metadata.topics if not name.startswith("__")]
    found = f"{where}: {_count(len(metadata.brokers), 'broker')}, {_count(len(topics), 'topic')}"
    findings.append(Finding("Kafka", "ok" if metadata.brokers else "fail", found))
    return [*findings, *_kafka_limits(settings, admin, list(metadata.brokers))]


def _kafka_advice(error: KafkaError) -> str:
    """Return what to do about an error whose cause is plain, else ""."""
    # A broker that hangs up on a handshake is reported as a transport error.
    code = KafkaError._SSL if "SSL handshake" in error.str() else error.code()
    return _KAFKA_ADVICE.get(code, "")


def _kafka_security(kafka: dict[str, str]) -> list[Finding]:
    hosts = [host.strip() for host in kafka["bootstrap.servers"].split(",")]
    protocol = kafka.get("security.protocol", "plaintext").lower()
    if protocol == "sasl_plaintext" and not all(host.startswith(_LOOPBACK) for host in hosts):
        return [
            Finding(
                "Kafka security",
                "warn",
                "credentials and records travel unencrypted",
                "set MILLSTREAM_KAFKA_SECURITY_PROTOCOL=SASL_SSL if the brokers offer it",
            )
        ]
    return []


def _kafka_limits(settings: Settings, admin: AdminClient, brokers: list[int]) -> list[Finding]:
    """Compare a broker's limits with what the settings ask of it."""
    if not brokers:
        return []
    resource = ConfigResource(ConfigResource.Type.BROKER, str(brokers[0]))
    try:
        configs = admin.describe_configs([resource], request_timeout=_PATIENCE_S)[resource].result(_PATIENCE_S)
    except KafkaException as error:
        return [Finding("Kafka limits", "warn", f"may not be read ({error.args[0].str()})", "they were not checked")]
    limits = {name: int(entry.value) for name, entry in configs.items() if (entry.value or "").isdigit()}
    findings = []
    if limits.get("transaction.max.timeout.ms", settings.transaction_timeout_ms) < settings.transaction_timeout_ms:
        most = limits["transaction.max.timeout.ms"]
        findings.append(
            Finding(
                "Kafka limits",
                "fail",
                f"transactions may last at most {most} ms, MILLSTREAM_TRANSACTION_TIMEOUT_MS asks for "
                f"{settings.transaction_timeout_ms}",
                f"set MILLSTREAM_TRANSACTION_TIMEOUT_MS to {most} or less",
            )
        )
    for name, meaning in (
        ("transaction.state.log.replication.factor", "exactly-once"),
        ("offsets.topic.replication.factor", "consumer groups"),
    ):
        if limits.get(name, 1) > len(brokers):
            found = f"{name} is {limits[name]}, with {_count(len(brokers), 'broker')} up: {meaning} may not work"
            findings.append(Finding("Kafka limits", "warn", found, "start more brokers, or lower it on this one"))
    if settings.replication > len(brokers):
        found = f"MILLSTREAM_REPLICATION is {settings.replication}, with {_count(len(brokers), 'broker')} up"
        findings.append(Finding("Kafka limits", "fail", found, "topics could not be created: lower it or add brokers"))
    return findings


def probe_redis(url: str) -> list[Finding]:
    """Reach Redis or Valkey; look at version, memory limit, eviction and security."""
    import redis
    from redis.backoff import NoBackoff
    from redis.retry import Retry as Retries

    parts = urlsplit(url)
    where = without_credentials(url)
    try:
        client = redis.Redis.from_url(
            url, socket_timeout=5.0, socket_connect_timeout=5.0, retry=Retries(NoBackoff(), 0)
        )
    except ValueError as error:
        return [
            Finding("Redis", "fail", str(error), "MILLSTREAM_REDIS_URL looks like rediss://user:password@host:6379/0")
        ]
    findings = []
    if parts.password and parts.scheme == "redis" and not (parts.hostname or "").startswith(_LOOPBACK):
        advice = "use a rediss:// URL if the server offers TLS"
        findings.append(Finding("Redis security", "warn", "the password travels unencrypted", advice))
    try:
        info: Any = client.info()
    except redis.AuthenticationError as error:
        advice = "check user and password in MILLSTREAM_REDIS_URL"
        return [*findings, Finding("Redis", "fail", f"{where} refuses the credentials: {error}", advice)]
    except (redis.ConnectionError, redis.TimeoutError) as error:
        advice = "is the server up, is the port right, does it expect TLS (rediss://)?"
        return [*findings, Finding("Redis", "fail", f"{where} does not answer: {error}", advice)]
    except redis.ResponseError as error:
        # Managed services and narrow ACLs may keep INFO from us; the data commands are what matters.
        return [
            *findings,
            Finding("Redis", "warn", f"{where} answers, but refuses INFO: {error}", "memory was not checked"),
        ]
    finally:
        client.close()
    product = "Valkey" if info.get("server_name") == "valkey" or "valkey_version" in info else "Redis"
    version = info.get("valkey_version", info.get("redis_version", "?"))
    findings.append(Finding("Redis", "ok", f"{where}: {product} {version}, {_memory(info)}"))
    policy = str(info.get("maxmemory_policy", "noeviction"))
    if int(info.get("maxmemory", 0)) and policy != "noeviction":
        found = f"evicts rows when full ({policy}): features of some keys would silently be missing"
        findings.append(Finding("Redis memory", "warn", found, "set maxmemory-policy noeviction and watch its memory"))
    return findings


def _memory(info: dict[str, Any]) -> str:
    used, most = int(info.get("used_memory", 0)), int(info.get("maxmemory", 0))
    limit = f"of {most / 2**20:.0f} MB" if most else "and no limit"
    return f"{used / 2**20:.0f} MB used {limit}, {info.get('maxmemory_policy', '?')}"


def probe_registry(settings: Settings) -> list[Finding]:
    """Reach the schema registry, if one is set."""
    url = settings.schema_registry_url
    if url is None:
        return [Finding("Schema registry", "ok", "none set; schemas are found by fingerprint")]
    secret = settings.schema_registry_user_info
    credentials = secret.get_secret_value() if secret else unquote(urlsplit(url).netloc.rpartition("@")[0])
    url = without_credentials(url)
    request = Request(url.rstrip("/") + "/subjects", headers={"Accept": "application/json"})
    if credentials:
        request.add_header("Authorization", "Basic " + b64encode(credentials.encode()).decode())
    try:
        with urlopen(request, timeout=5.0) as answer:
            subjects = json.load(answer)
    except HTTPError as error:
        refused = error.code in {401, 403}
        advice = "check MILLSTREAM_SCHEMA_REGISTRY_USER_INFO (user:password)" if refused else "see the registry's log"
        return [Finding("Schema registry", "fail", f"{url}: {error}", advice)]
    except (OSError, ValueError) as error:
        advice = "check MILLSTREAM_SCHEMA_REGISTRY_URL and that the registry is up"
        return [Finding("Schema registry", "fail", f"{url} does not answer as a registry does: {error}", advice)]
    return [Finding("Schema registry", "ok", f"{url}: {_count(len(subjects), 'subject')}")]


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
