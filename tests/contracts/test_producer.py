"""Publishing: order, back-pressure and every record's fate."""

import pytest

from fakes_producer import FakeProducer
from millstream.adapters.kafka.producer import Deliveries, drain, publish
from millstream.errors import Retry, Stop

VALUES = [b"%d" % i for i in range(10)]


def test_a_full_queue_is_waited_for_and_order_is_kept() -> None:
    client, deliveries = FakeProducer(room=3), Deliveries()
    publish(client, "t", [b"k"] * 10, VALUES, list(range(10)), deliveries=deliveries, tags=range(10))
    drain(client, deliveries)
    assert client.records == [("t", b"k", value, i) for i, value in enumerate(VALUES)]
    assert (deliveries.sent, deliveries.acked, deliveries.next_tag, deliveries.waiting) == (10, 10, 10, {})


def test_a_refused_record_stops_the_stream_and_is_named() -> None:
    client, deliveries = FakeProducer(refused=frozenset({b"4"})), Deliveries()
    with pytest.raises(Stop, match="row 104 of t"):
        publish(client, "t", [None] * 10, VALUES, deliveries=deliveries, tags=range(100, 110))
    assert deliveries.acked == 9
    assert [tag for tag, _ in deliveries.failed] == [104]


def test_unacknowledged_records_are_an_error_and_stay_known() -> None:
    client, deliveries = FakeProducer(reachable=False), Deliveries()
    publish(client, "t", [None] * 2, VALUES[:2], deliveries=deliveries, tags=[7, 9])
    with pytest.raises(Retry, match="2 of 2 records"):
        drain(client, deliveries, timeout_s=0.01)
    assert list(deliveries.waiting) == [7, 9]
