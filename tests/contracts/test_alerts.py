"""Alerts on a real broker, as people and programs meet them: listed, acted upon, handed on, subscribed to."""

from __future__ import annotations

import json
import math
import subprocess
import sys
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
import typer
from confluent_kafka.admin import AdminClient, ConfigResource  # type: ignore[attr-defined] # public, says its manual
from typer.testing import CliRunner

from cards import topology, view
from millstream.adapters.embedded.endpoints import Endpoints
from millstream.adapters.files.contracts import load_contract, schemas_dir
from millstream.adapters.kafka.producer import Deliveries, drain, open_producer
from millstream.adapters.kafka.producer import publish as queue
from millstream.adapters.kafka.topics import create_topics
from millstream.adapters.reports.alert_sinks import as_alertmanager, post_alert
from millstream.cli import alerts as commands
from millstream.cli import exit_code
from millstream.cli.alert_forward import Withheld
from millstream.cli.alert_rows import json_line
from millstream.cli.screen import humane
from millstream.core.avro.encode import RecordWriter
from millstream.core.drift.actions import Action
from millstream.core.drift.alert import Evidence, Kind, Signal
from millstream.core.drift.incidents import Evaluation, Policy, initial, update
from millstream.errors import Misconfigured, Retry
from millstream.settings import load_settings
from millstream.stages.monitor.monitor import as_batch
from millstream.topology import ALERT_ACTIONS, ALERTS, SCHEMAS

pytestmark = pytest.mark.kafka
HOUR_MS = 3_600_000
ROOT = Path(__file__).parents[2]


def _signal(kind: Kind, feature: str, hour: int, ratio: float) -> Signal:
    evidence = Evidence((hour - 6) * HOUR_MS, hour * HOUR_MS, "scored", ((0, 10, 90),))
    return Signal(kind, "fraud", 3, feature, "", "psi over 6 h", ratio / 10, 0.1, evidence, "May", 0.5, 0.2)


def _told() -> list[Any]:
    """Return a data incident that opens and closes, and a concept incident that stays open."""
    said = [
        Evaluation(hour * HOUR_MS, (_signal("data", "amount", hour, data), _signal("concept", "", hour, concept)))
        for hour, data, concept in ((100, 2.0, 0.1), (101, 0.1, 4.0), (102, 0.1, 4.0), (103, 0.1, 4.0))
    ]
    return update(initial(), said, Policy())[1]


@pytest.fixture(scope="module")
def alerts(kafka: Endpoints, stack_dir: Path) -> list[Any]:
    declared = topology(view("spent", "customer")).topics
    topics = [each for each in declared if each.name in {ALERTS, ALERT_ACTIONS, SCHEMAS}]
    create_topics(kafka.kafka, topics, partitions=1, replication=1)
    told = _told()
    values = RecordWriter(load_contract(load_settings({}), ALERTS).schema).encode(as_batch(told))
    producer, deliveries = open_producer(kafka.kafka), Deliveries()
    keys = [each.id.encode() for each in told]
    queue(producer, ALERTS, keys, values, deliveries=deliveries, tags=list(range(len(told))))
    drain(producer, deliveries)
    return told


class Millstream:
    """The command, in this process."""

    def __init__(self) -> None:
        self._app = typer.Typer()
        self._app.callback()(lambda: None)
        commands.register(self._app)

    def __call__(self, *arguments: str) -> str:
        done = CliRunner().invoke(self._app, ["alerts", *arguments], catch_exceptions=False)
        assert done.exit_code == 0, done.output
        return done.output

    def rows(self, *arguments: str) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self(*arguments, "--json").splitlines()]


@pytest.fixture
def millstream(alerts: list[Any], stack_dir: Path, monkeypatch: pytest.MonkeyPatch) -> Millstream:
    monkeypatch.setenv("MILLSTREAM_STATE_DIR", str(stack_dir))
    monkeypatch.setenv("MILLSTREAM_REDIS_URL", "redis://127.0.0.1:1")  # alerts are in Kafka alone
    return Millstream()


def test_what_opened_an_incident_is_kept_for_thirty_days(alerts: list[Any], kafka: Endpoints) -> None:
    resources = [ConfigResource(ConfigResource.Type.TOPIC, name) for name in (ALERTS, ALERT_ACTIONS)]
    admin = AdminClient(dict(kafka.kafka))
    told = [future.result(30) for future in admin.describe_configs(resources).values()]
    assert [int(each["min.compaction.lag.ms"].value) for each in told] == [30 * 24 * HOUR_MS, 0]
    assert {each["cleanup.policy"].value for each in told} == {"compact"}


def test_what_is_open_is_listed_and_what_people_do_is_seen(millstream: Millstream, alerts: list[Any]) -> None:
    data, concept = alerts[0].id, alerts[1].id
    assert [(row["id"], row["kind"]) for row in millstream.rows()] == [(concept, "concept")]
    assert [row["id"] for row in millstream.rows("--all")] == [data, concept]
    listed = " ".join(millstream().split())
    assert concept[:8] in listed
    assert "subject model fraud" in listed
    assert f"closed {humane('at_ms', next(each.at_ms for each in alerts if each.event == 'close'))}" in " ".join(
        millstream("--all").split()
    )
    assert "closed" not in listed
    millstream("ack", concept[:6], "--note", "retraining", "--by", "ann")
    (row,) = millstream.rows()
    assert (row["acknowledged"]["by"], row["acknowledged"]["note"], row["silenced"]) == ("ann", "retraining", None)
    said = millstream("silence", "--kind", "concept", "--for", "2h", "--note", "known")
    (row,) = millstream.rows()
    assert row["silenced"]["note"] == "known"
    assert row["silenced"]["id"] in said
    millstream("unsilence", row["silenced"]["id"])
    assert millstream.rows()[0]["silenced"] is None
    assert "nobody" not in millstream("show", concept[:8])


def test_an_incident_is_shown_in_full(millstream: Millstream, alerts: list[Any]) -> None:
    (full,) = millstream.rows("show", alerts[0].id)
    assert [each["event"] for each in full["history"]] == ["open", "close"]
    assert full["subjects"][0]["feature"] == "amount"
    assert full["runbook"] == "infra/runbook.md#data"
    shown = millstream("show", alerts[0].id[:8])
    assert "psi over 6 h" in shown
    history = shown[shown.index("history") :]
    assert all(each in history for each in ("1970-01-05 04:00:00", "open", "close", "amount", "psi over 6 h"))
    assert str(alerts[0].at_ms) not in shown
    assert "model fraud" in millstream("show", alerts[1].id[:8]).split("history", 1)[1]
    with pytest.raises(Misconfigured, match="no incident"):
        millstream("show", "zz")
    assert CliRunner().invoke(millstream._app, ["alerts", "silence", "--for", "1d"]).exit_code == 2


@pytest.fixture
def server() -> Iterator[tuple[str, list[tuple[str, Any]], list[int]]]:
    """A local HTTP server: its URL, what it was sent, and the answers it is still to give before 200."""
    sent: list[tuple[str, Any]] = []
    answers: list[int] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])), parse_constant=self.fail)
            code = answers.pop(0) if answers else 200
            if code == 200:
                sent.append((self.path, body))
            self.send_response(code)
            self.end_headers()

        def fail(self, constant: str) -> None:
            raise AssertionError(f"{constant} is no JSON")

        def log_message(self, format: str, *args: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as held:
        thread = threading.Thread(target=held.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{held.server_port}", sent, answers
        held.shutdown()
        thread.join()


def test_alerts_are_handed_on_once_each_and_silenced_ones_not(
    millstream: Millstream, alerts: list[Any], server: tuple[str, list[tuple[str, Any]], list[int]]
) -> None:
    url, sent, answers = server
    answers.append(503)  # a receiver that is away for a moment loses nothing
    millstream("forward", url + "/hook", "--once")
    assert [(path, body["event_id"]) for path, body in sent] == [("/hook", each.event_id) for each in alerts]
    millstream("forward", url + "/hook", "--once")
    assert len(sent) == len(alerts)
    del sent[:]
    millstream("silence", "--feature", "amount", "--for", "1h")
    millstream("forward", url, "--as", "alertmanager", "--once")
    assert {path for path, _ in sent} == {"/api/v2/alerts"}
    assert [body[0]["labels"]["kind"] for _, body in sent] == ["concept"] * (len(alerts) - 2)
    (held,) = [row["silenced"]["id"] for row in millstream.rows("--all") if row.get("silenced")]
    millstream("unsilence", held)


def test_an_end_is_handed_on_though_silenced_where_the_receiver_may_know_of_the_incident(alerts: list[Any]) -> None:
    rows = [as_rows(each) for each in alerts if each.kind == "data"]
    opened, closed = rows[0], rows[-1]
    hushed = [Action("a", "silence", opened["id"], "", "", 2, "ann", "", 0)]
    assert (opened["event"], closed["event"]) == ("open", "close")
    assert Withheld().passes(closed, hushed, 1)  # what an earlier run handed on is not known here
    whole = Withheld()
    assert [whole.passes(each, hushed, 1) for each in (opened, {**opened, "event": "update"}, closed)] == [False] * 3
    late = Withheld()
    assert [late.passes(opened, [], 1), late.passes({**opened, "event": "update"}, hushed, 1)] == [True, False]
    assert late.passes(closed, hushed, 1)
    ended = Withheld()
    assert [ended.passes(opened, hushed, 1), ended.passes({**opened, "event": "update"}, hushed, 2)] == [False, True]
    assert ended.passes(closed, hushed, 1)


def test_a_receiver_that_is_away_ends_once_and_loses_nothing(
    millstream: Millstream, alerts: list[Any], server: tuple[str, list[tuple[str, Any]], list[int]]
) -> None:
    url, sent, answers = server
    answers += [200, 503, 503, 503]
    with pytest.raises(Retry, match=r"503.*gave up after 3 tries, alerts forwarded before: 1;"):
        millstream("forward", url + "/away", "--once")
    assert exit_code(Retry("")) == 75
    millstream("forward", url + "/away", "--once", "--runbook-url", "https://example.org/runbook")
    assert [body["event_id"] for _, body in sent] == [each.event_id for each in alerts]
    assert ["runbook_url" in body for _, body in sent] == [False] + [True] * (len(alerts) - 1)
    assert sent[-1][1]["runbook_url"] == f"https://example.org/runbook#{alerts[-1].kind}"


def test_silences_in_force_are_listed_though_they_are_about_no_present_alert(millstream: Millstream) -> None:
    told = millstream("silence", "--feature", "amuont", "--for", "2d", "--note", "a deploy")
    assert "no alert was led by 'amuont'" in told
    (held,) = [row for row in millstream.rows("--all") if row.get("action") == "silence"]
    assert (held["feature"], held["note"]) == ("amuont", "a deploy")
    until = datetime.fromtimestamp(held["until_ms"] / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S")
    assert f"until {until}" in " ".join(told.split())
    listed = millstream("--all")
    assert all(each in listed for each in (held["id"], "feature amuont", until, "a deploy"))
    assert held["id"] not in millstream()
    millstream("unsilence", held["id"])
    assert held["id"] not in millstream("--all")
    known = millstream("silence", "--feature", "amount")
    assert "no alert" not in known
    millstream("unsilence", known.split()[1])


def test_an_incident_holds_until_it_ended_and_is_resolved_under_the_same_labels(alerts: list[Any]) -> None:
    now_ms, day_ms = 20_000 * 24 * HOUR_MS, 24 * HOUR_MS
    rows = [as_rows(each) for each in (alerts[0], next(a for a in alerts if a.event == "close"))]
    opened, closed = (as_alertmanager(each, now_ms) for each in rows)
    assert opened["labels"] == closed["labels"]
    assert opened["startsAt"] == closed["startsAt"] == "1970-01-05T04:00:00+00:00"
    assert datetime.fromisoformat(opened["endsAt"]).timestamp() * 1000 == now_ms + 30 * day_ms
    assert datetime.fromisoformat(closed["endsAt"]).timestamp() * 1000 == now_ms
    ahead = as_alertmanager(rows[1], 0)  # event time ahead of the clock
    assert ahead["endsAt"] >= ahead["startsAt"]
    assert (opened["annotations"]["runbook"], "runbook_url" in opened["annotations"]) == (rows[0]["runbook"], False)
    linked = as_alertmanager(rows[0], now_ms, "https://example.org/runbook")["annotations"]
    assert (linked["runbook_url"], "runbook" in linked) == ("https://example.org/runbook#data", False)


def test_a_statistic_without_bound_is_null_in_json(
    alerts: list[Any], server: tuple[str, list[tuple[str, Any]], list[int]]
) -> None:
    url, sent, _ = server
    row = {**as_rows(alerts[0]), "statistic": math.inf}
    post_alert("webhook", url, row, 0)
    post_alert("alertmanager", url, row, 0)
    assert sent[0][1]["statistic"] is None
    assert json.loads(json_line({"history": [row]}))["history"][0]["statistic"] is None


def as_rows(alert: Any) -> dict[str, Any]:
    batch = as_batch([alert])
    return {
        name: column[0].item() if hasattr(column[0], "item") else column[0] for name, column in batch.columns.items()
    }


def test_what_a_receiver_refuses_is_told_apart_from_what_it_cannot_take_now(
    alerts: list[Any], server: tuple[str, list[tuple[str, Any]], list[int]]
) -> None:
    url, _, answers = server
    row = as_rows(alerts[0])
    for code, error in ((500, Retry), (429, Retry), (400, Misconfigured)):
        answers.append(code)
        with pytest.raises(error, match=str(code)):
            post_alert("webhook", url, row, 0)
    with pytest.raises(Misconfigured, match="ftp"):
        post_alert("webhook", "ftp://x", row, 0)
    with pytest.raises(Retry, match="reached"):
        post_alert("webhook", "http://127.0.0.1:9", row, 0)


def test_a_subscriber_of_twenty_lines_hears_every_alert(alerts: list[Any], kafka: Endpoints) -> None:
    script = ROOT / "infra" / "subscriber.py"
    assert len(script.read_text().splitlines()) <= 20
    schema = schemas_dir(load_settings({})) / "alerts.avsc"
    command = [sys.executable, str(script), kafka.kafka["bootstrap.servers"], str(schema)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as heard:
        assert heard.stdout is not None
        lines = [heard.stdout.readline().split() for _ in alerts]
        heard.kill()
    assert [line[0] for line in lines] == [each.event for each in alerts]
    assert lines[0] == ["open", "warning", "data", "amount", "infra/runbook.md#data"]
