"""One chaos run: cluster, stream, fault injection, then the checks."""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable
from pathlib import Path

from millstream.adapters.embedded.endpoints import free_ports, resolve
from millstream.adapters.kafka.promotions import publish as promote
from millstream.adapters.kafka.schema_topic import SchemaResolver, schema_resolver
from millstream.app.assembly import Assembly
from millstream.app.setup import initialise
from millstream.core.models.manifest import define
from millstream.errors import Stop
from millstream.runtime.log.kafka_reader import KafkaReader
from millstream.settings import Settings
from millstream.stages.score.scorer import Champion
from millstream.topology import DEAD_LETTERS, PREDICTIONS, SCORED
from millstream_lab.chaos.candidate_models import candidate
from millstream_lab.chaos.checker_state import check_online, check_state
from millstream_lab.chaos.cluster import Cluster
from millstream_lab.chaos.fault_context import FaultContext
from millstream_lab.chaos.fault_injector import InjectedFault, idle, inject_faults
from millstream_lab.chaos.faults import BAD_MODELS
from millstream_lab.chaos.growth import grow
from millstream_lab.chaos.history import read_history
from millstream_lab.chaos.invariants import check_topics
from millstream_lab.chaos.observer import Observer, WatchedGroup
from millstream_lab.chaos.oracle import ReferenceRun, run_undisturbed
from millstream_lab.chaos.plan import ChaosPlan, ChaosResult
from millstream_lab.chaos.publisher import Publisher
from millstream_lab.chaos.stream import ChaosStream

PARTITIONS = 4
_SETTLE_S = 180.0
_QUIET_S = 2.0
Say = Callable[[str], None]


class ChaosRun:
    """A run in an empty directory.

    Parameters
    ----------
    say : callable
        Told each step.
    watch, after : callable
        Called once everything runs, before the first fault; and when all is checked, while the servers still run.

    Attributes
    ----------
    expected : dict of str to ReferenceRun
        What the undisturbed run came to, by stage name.
    """

    def __init__(
        self,
        plan: ChaosPlan,
        directory: Path,
        say: Say,
        watch: Callable[[ChaosRun], None] = lambda _run: None,
        after: Callable[[ChaosRun], None] = lambda _run: None,
    ) -> None:
        self.plan = plan
        self.watch = watch
        self.after = after
        self.expected: dict[str, ReferenceRun] = {}
        self.result = ChaosResult()
        self._say = say
        environ = {
            "MILLSTREAM_CHECKPOINT_INTERVAL_MS": "1000",
            "MILLSTREAM_TRANSACTION_TIMEOUT_MS": "10000",
            "MILLSTREAM_PARTITIONS": str(PARTITIONS),
            "MILLSTREAM_GUARANTEE": plan.guarantee,
        }
        self.cluster = Cluster(directory, free_ports(3), environ)

    def execute(self, done: Callable[[InjectedFault], None]) -> ChaosResult:
        """Do it all.

        Raises
        ------
        Stop
            The cluster did not get well again, or a fault itself found a failure.
        """
        started_s = time.monotonic()
        try:
            self._prepare()
            self._disturb(done)
            self._check()
            self.after(self)
            for turn in range(self.plan.growths):
                names = [f"worker-{number}" for number in range(1, self.plan.workers + 1)]
                try:
                    deed = grow(self.settings, self.cluster, self.assembly.topology, names, turn)
                except Stop as error:
                    self.result.find("faults went as they should", [f"partitions added: {error}"])
                    break
                self.result.deeds.append(deed)
                done(deed)
        finally:
            self.cluster.end()
            self.result.seconds = time.monotonic() - started_s
        return self.result

    def _prepare(self) -> None:
        self.settings: Settings = self.cluster.start(self._say)
        self.kafka = resolve(self.settings, redis=False).kafka
        self.assembly: Assembly = initialise(self.settings, self._say)
        service = self.assembly.declaration.service
        self.good = [candidate(service, version, self.plan.seed) for version in (1, 2)]
        promote(self.kafka, self.good[0])
        schema = self.assembly.contract.schema
        stages = self.assembly.topology.stages
        self.stream = ChaosStream(schema, self.plan.seed, self.plan.step_ms)
        self.publisher = Publisher(self.kafka, stages[0].input, self.stream, self.plan.rate)
        watched = [
            WatchedGroup(f"{self.assembly.topology.project}.{s.name}", s.input, (s.output, DEAD_LETTERS))
            for s in stages
        ]
        self.observer = Observer(self.kafka, watched, (PREDICTIONS, DEAD_LETTERS), PARTITIONS, PREDICTIONS)

    def _disturb(self, done: Callable[[InjectedFault], None]) -> None:
        names = [f"worker-{number}" for number in range(1, self.plan.workers + 1)]
        for name in names:
            self.cluster.add(name)
        self._until(lambda: all(self.cluster.ready(name) for name in names), "no worker became ready")
        self.observer.start()
        self.publisher.start()
        url = self.cluster.valkey_server.url
        context = FaultContext(
            self.cluster,
            random.Random(self.plan.seed),
            self.kafka,
            url,
            self.assembly.declaration.service,
            self.good,
            self.assembly.contract.schema,
            self.stream,
            PARTITIONS,
            self.plan.spared,
        )
        self.watch(self)
        try:
            self.result.deeds = inject_faults(
                context, self.plan.faults, self.plan.names, self._healthy, done, self._lag_text
            )
        finally:
            self._say("fault injection is done; waiting until everything published is answered")
            self.publisher.finish()
        self.result.find("every fault did harm", idle(self.result.deeds))
        self.result.find("faults went as they should", [deed.wrong for deed in self.result.deeds if deed.wrong])
        self._until(self._caught_up, "not everything was answered")
        time.sleep(_QUIET_S)  # for the few that might still hide among the markers
        self._until(lambda: all(map(self.cluster.ready, names)), "no worker became ready")
        for name in names:
            code = self.cluster.stop(name)
            self.result.find("clean stop", [] if code == 0 else [f"{name} left with {code}"])
        self.result.published = dict(self.stream.kinds)
        for each in self.cluster.exits:
            key = f"exit {each.code}" if each.code >= 0 else f"killed by signal {-each.code}"
            self.result.exits[key] = self.result.exits.get(key, 0) + 1

    def _lags(self, since_s: float) -> list[float]:
        lags = [self.observer.lag(stage.input, since_s) for stage in self.assembly.topology.stages]
        return [math.inf if lag is None else lag for lag in lags]

    def _lag_text(self) -> str:
        stages, lags = self.assembly.topology.stages, self._lags(-math.inf)
        known = ", ".join(f"{stage.name} {lag:.0f}" for stage, lag in zip(stages, lags, strict=True))
        return f"lag in records, as sampled last: {known}"

    def _healthy(self, since_s: float) -> bool:
        if self.publisher.failure is not None:
            raise Stop(f"publishing failed: {self.publisher.failure}")
        return all(map(self.cluster.ready, self.cluster.workers)) and max(self._lags(since_s)) < self.plan.rate

    def _caught_up(self) -> bool:
        # The markers that end transactions are never committed: each worker's last one may lie behind the last record.
        return max(self._lags(time.monotonic() - 3)) <= PARTITIONS * len(self.cluster.workers)

    def _until(self, condition: Callable[[], bool], failed: str) -> None:
        deadline = time.monotonic() + _SETTLE_S
        while not condition():
            if time.monotonic() > deadline:
                ended = self.cluster.exits[-3:]
                tails = "\n".join(f"--- {each.worker} left with {each.code}\n{each.tail}" for each in ended)
                lags = self._lags(time.monotonic() - 3)
                raise Stop(f"{failed} within {_SETTLE_S:.0f} s; lags {lags}, inf if not to be had for 3 s\n{tails}")
            time.sleep(0.2)

    def _check(self) -> None:
        self._say("reading every topic")
        resolve = self._resolver()
        reader = KafkaReader(self.kafka, "chaos-checker")
        try:
            time.sleep(1.0)  # the observer's last look
            history = read_history(reader, self.assembly, resolve, PARTITIONS)
        finally:
            reader.close()
        self.observer.close()
        definitions = define(self.assembly.declaration)
        service = self.assembly.declaration.service
        champions: list[Champion | None] = [Champion.load(each, service, 1, definitions) for each in self.good]
        if any(deed.fault in BAD_MODELS for deed in self.result.deeds):
            champions.append(None)  # who starts while nothing better is on offer answers by the declared rule
        stages = self.assembly.topology.stages
        for plan in stages:
            records = history.inputs[plan.input]
            self._say(f"running {plan.name} undisturbed over {len(records):,} records")
            self.expected[plan.name] = run_undisturbed(self.assembly, plan, resolve, records, champions, PARTITIONS)
        published = self.stream.kinds
        for invariant, wrong in check_topics(stages, self.expected, history, self.observer, published).items():
            self.result.find(invariant, wrong)
        for invariant, wrong in self.check_state().items():
            self.result.find(invariant, wrong)
        acked, kept = self.publisher.deliveries.acked, len(history.inputs[stages[0].input])
        self.result.find(
            "published and retained",
            [] if acked == kept else [f"{acked} records were acknowledged, {kept} are in the topic"],
        )
        versions = set(history.outputs[SCORED].batch.columns["model_version"].tolist())
        swapped = any(deed.fault == "model swapped in flight" for deed in self.result.deeds)
        self.result.find(
            "every fault did harm",
            [f"models were swapped, but only {versions} answered"] if swapped and len(versions) < 2 else [],
        )
        self.result.outcomes = {
            "predictions": len(history.predictions.records),
            "dead letters": len(history.dead_letters.records),
        }

    def check_state(self) -> dict[str, list[str]]:
        """Compare online features and changelogs, as they are now, with the undisturbed run's."""
        findings: dict[str, list[str]] = {"online features equal": [], "state equal, no replay": []}
        resolve = self._resolver()
        for plan in self.assembly.topology.stages:
            expected = self.expected[plan.name]
            findings["online features equal"] += check_online(self.settings, self.assembly, plan, expected)
            log = KafkaReader(self.kafka, f"{self.assembly.topology.project}.{plan.name}")
            try:
                fresh = self.assembly.stage(plan, resolve, partitions=PARTITIONS)
                findings["state equal, no replay"] += check_state(plan, expected, fresh, log)
            finally:
                log.close()
        return findings

    def _resolver(self) -> SchemaResolver:
        return schema_resolver(self.settings, self.kafka, self.assembly.schemas)
