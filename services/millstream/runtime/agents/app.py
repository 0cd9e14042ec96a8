"""The app of a project's ``agents.py``: a `faust.App` whose agents are stages, fed and committed by the stage loop."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

import faust
from faust.app.base import BootStrategy

from millstream.errors import Misconfigured
from millstream.runtime.agents.context import Sent, current
from millstream.runtime.agents.table import Table

Encode = Callable[[Any, Any], tuple[bytes | None, bytes | None]]
"""From key and value of a record that is sent to bytes."""


class _NoKafka(BootStrategy):
    enable_kafka = False
    enable_web = False


class Topic:
    """A topic that agents read or send to; its records are those of its contract, ``schemas/{name}.avsc``."""

    def __init__(self, app: App, name: str) -> None:
        self.app = app
        self.name = name
        self.encode: Encode | None = None

    async def send(
        self, *, key: Any = None, value: Any = None, partition: int | None = None, timestamp: float | None = None
    ) -> None:
        """Send a record in the transaction of the event that is being processed.

        In a timer, task or signal handler it is sent in the next transaction, at most once.

        Parameters
        ----------
        key : str, int or bytes, optional
            Default: the text of the field that the contract names as key.
        value : dict or None
            Fields by name; None is a tombstone.
        partition : int, optional
            Default: by the key.
        timestamp : float, optional
            Seconds since the epoch; default: that of the event that is being processed.

        Raises
        ------
        ValueError
            The value does not fit the contract.
        RuntimeError
            The topic is not declared, or no worker runs.
        """
        self.send_soon(key=key, value=value, partition=partition, timestamp=timestamp)

    def send_soon(
        self, *, key: Any = None, value: Any = None, partition: int | None = None, timestamp: float | None = None
    ) -> None:
        """See `send`."""
        if self.encode is None:
            raise RuntimeError(f"nothing can be sent to {self.name!r}: the engine writes it, or no worker has started")
        scope = current.get()
        stamp_ms = None if timestamp is None else round(timestamp * 1000)
        if stamp_ms is None and scope is not None:
            stamp_ms = scope.events[-1].timestamp_ms
        encoded_key, encoded = self.encode(key, value)
        sent = Sent(self.name, encoded_key, encoded, partition, stamp_ms)
        if scope is not None:
            scope.sent.append(sent)
        else:
            self.app.outside.append(sent)


@dataclass(frozen=True, slots=True)
class Agent:
    """A declared agent.

    Parameters
    ----------
    name : str
        Of the stage.
    topic : Topic
        What it reads.
    fun : callable
        From a `Stream` to a coroutine or an asynchronous generator.
    sinks : tuple of Topic or callable
        What each yielded value is sent to.
    """

    name: str
    topic: Topic
    fun: Callable[[Any], Any]
    sinks: tuple[Any, ...]


class App(faust.App):
    """An app that is declared in the feature repo's ``agents.py``.

    Agents, timers, tasks, cron jobs and commands are declared as Faust's documentation says. Agents run as stages:
    exactly once, with the app's tables as their state. What Faust does through Kafka by itself is refused by name.

    Examples
    --------
    >>> app = App()
    >>> counts = app.Table("counts", default=int)
    >>> @app.agent(app.topic("predictions"), sink=[app.topic("decision-counts")])
    ... async def count(predictions):
    ...     async for prediction in predictions:
    ...         counts[prediction["decision"]] += 1
    ...         yield {"decision": prediction["decision"], "count": counts[prediction["decision"]]}
    >>> app.declared["count"].topic.name
    'predictions'
    """

    BootStrategy = _NoKafka

    def __init__(self, id: str = "millstream", **options: Any) -> None:
        if "broker" in options or "store" in options:
            raise Misconfigured("agents.py: App takes no broker or store; the project's settings name the cluster")
        super().__init__(
            id,
            broker="kafka://unused",
            store="memory://",
            web_enabled=False,
            autodiscover=False,
            topic_disable_leader=True,
            **options,
        )
        self.declared: dict[str, Agent] = {}
        self.topics_by_name: dict[str, Topic] = {}
        self.tables_by_name: dict[str, Table] = {}
        self.outside: deque[Sent] = deque()
        self.outside_lock = threading.Lock()
        self.commands: dict[str, Any] = {}
        self.sealed = False
        """Whether ``agents.py`` has run; what Faust itself does with the app afterwards is not refused."""

    def topic(self, *names: str, **options: Any) -> Any:
        """Return a topic by its name; how records are encoded follows from its contract."""
        if len(names) != 1 or options:
            given = ", ".join([*names, *options]) or "nothing"
            raise Misconfigured(f"agents.py: app.topic takes one name and no options, found {given}")
        return self.topics_by_name.setdefault(names[0], Topic(self, names[0]))

    def Table(self, name: str, *, default: Callable[[], Any] | None = None, **options: Any) -> Any:  # noqa: N802
        """Return a table; see `millstream.runtime.agents.table.Table`."""
        if options:
            raise Misconfigured(f"agents.py: app.Table takes a name and a default, found {', '.join(options)}")
        if name in self.tables_by_name:
            raise Misconfigured(f"agents.py: there are two tables {name!r}")
        return self.tables_by_name.setdefault(name, Table(name, default))

    def agent(  # type: ignore[override]
        self, channel: Any = None, *, name: str | None = None, sink: Sequence[Any] = (), **options: Any
    ) -> Callable[[Callable[[Any], Any]], Agent]:
        """Declare an agent: a stage that reads a topic and is called with its stream.

        Parameters
        ----------
        channel : Topic or str
            What it reads.
        name : str, optional
            Of the stage; default: the function's name.
        sink : sequence of Topic or callable, optional
            What each value that the function yields is sent to.
        """
        given = {key: value for key, value in options.items() if value not in (None, 1, False)}
        if given:
            raise Misconfigured(
                f"agents.py: app.agent takes a topic, a name and sinks; {', '.join(given)} cannot be given a meaning "
                "in a transaction"
            )
        topic = self.topic(channel) if isinstance(channel, str) else channel
        if not isinstance(topic, Topic):
            raise Misconfigured('agents.py: name what the agent reads: @app.agent(app.topic("predictions"))')

        def declare(fun: Callable[[Any], Any]) -> Agent:
            called = name or fun.__name__
            if called in self.declared:
                raise Misconfigured(f"agents.py: there are two agents {called!r}")
            self.declared[called] = Agent(called, topic, fun, tuple(sink))
            return self.declared[called]

        return declare

    async def send(  # type: ignore[override]
        self, channel: Any, key: Any = None, value: Any = None, **options: Any
    ) -> None:
        """Send to a topic or topic's name; see `Topic.send`."""
        await (self.topic(channel) if isinstance(channel, str) else channel).send(key=key, value=value, **options)

    def stage_agent(self, channel: Any, name: str, fun: Callable[[Any], Any]) -> None:
        """Register the runtime's own agent of a stage, which Faust supervises."""
        super().agent(channel, name=name)(fun)

    def timer(  # type: ignore[override]
        self, interval: Any, on_leader: bool = False, **options: Any
    ) -> Any:
        """See `faust.App.timer`; it runs in every worker that runs an agent."""
        _no_leader(on_leader)
        return super().timer(interval, **options)

    def crontab(  # type: ignore[override]
        self, cron_format: str, *, on_leader: bool = False, **options: Any
    ) -> Any:
        """See `faust.App.crontab`; it runs in every worker that runs an agent."""
        _no_leader(on_leader)
        return super().crontab(cron_format, **options)

    def task(  # type: ignore[override]
        self, fun: Any = None, *, on_leader: bool = False, **options: Any
    ) -> Any:
        """See `faust.App.task`; it runs in every worker that runs an agent."""
        _no_leader(on_leader)
        return super().task(fun, **options)

    def command(self, *options: Any, **more: Any) -> Any:
        """See `faust.App.command`; ``millstream agents command NAME`` runs it."""
        declare = super().command(*options, **more)

        def declared(fun: Callable[..., Any]) -> Any:
            self.commands[fun.__name__.replace("_", "-")] = found = declare(fun)
            return found

        return declared

    def GlobalTable(self, *_: Any, **__: Any) -> NoReturn:  # noqa: N802
        """Refused."""
        _refuse("GlobalTable", "read the topic with an agent of its own")

    def SetTable(self, *_: Any, **__: Any) -> NoReturn:  # noqa: N802
        """Refused."""
        _refuse("SetTable", "keep a list in an app.Table")

    def SetGlobalTable(self, *_: Any, **__: Any) -> NoReturn:  # noqa: N802
        """Refused."""
        _refuse("SetGlobalTable", "keep a list in an app.Table")

    def stream(self, *arguments: Any, **options: Any) -> Any:
        """Refused in ``agents.py``; Faust itself streams the micro-batches of the stages."""
        if not self.sealed:
            _refuse("stream", "declare an agent, which is given its stream")
        return super().stream(*arguments, **options)

    def page(self, *arguments: Any, **options: Any) -> Any:
        """Refused in ``agents.py``; Faust's own pages are not served."""
        if not self.sealed:
            _refuse("page", "the worker serves metrics and health only")
        return super().page(*arguments, **options)

    def LiveCheck(self, **_: Any) -> NoReturn:  # noqa: N802
        """Refused."""
        _refuse("LiveCheck", "test agents with millstream.testing")


def _refuse(name: str, instead: str) -> NoReturn:
    raise Misconfigured(f"agents.py: app.{name} is not available; {instead}")


def _no_leader(on_leader: bool) -> None:
    if on_leader:
        raise Misconfigured("agents.py: on_leader is not available, since workers elect no leader; run one worker")
