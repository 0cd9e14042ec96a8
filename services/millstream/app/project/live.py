"""What a project does with Kafka and the online store: publish, consume, read features, run the stages."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Self, Unpack

from millstream.app.assembly import assemble
from millstream.app.project.offline import OfflineProject, version_text, warn
from millstream.settings import load_settings

if TYPE_CHECKING:
    import pandas as pd
    import polars as pl

    from millstream.app.file_format import FileFormat
    from millstream.app.publishing import Published
    from millstream.app.tables import Table
    from millstream.app.training import Model


class LiveProject(OfflineProject):
    """The part of `millstream.Project` that reads and writes topics and the online store."""

    def promote(self, model: Model | int) -> None:
        """Make a version champion: every scorer serves it from its next micro-batch on.

        Raises
        ------
        Refused
            There is no such version, or it does not fit the feature repo.
        Misconfigured, Retry
            Kafka cannot be reached.
        """
        from millstream.adapters.embedded.endpoints import resolve
        from millstream.app.training import promote

        promote(self.assembly, resolve(self.settings, redis=False).kafka, int(version_text(model)))

    def publish(
        self,
        topic: str,
        rows: Table,
        *,
        columns: Mapping[str, str] | None = None,
        first_row: int = 0,
        **file_format: Unpack[FileFormat],
    ) -> Published:
        """Publish rows to a topic, in order, and wait until Kafka has acknowledged them.

        Rows that do not fit the topic's contract are not sent, and are returned.

        Parameters
        ----------
        topic : str
            Such as ``labels``, or the topic of the events.
        rows : DataFrame, sequence of mapping, or path
            As in `replay`.
        columns : mapping of str to str, optional
            From columns of ``rows`` to fields of the contract, where names differ.
        first_row : int
            Publish from this row on; rows count from 0.
        **file_format
            What files do not say of themselves; see `millstream.app.file_format.FileFormat`.

        Returns
        -------
        Published

        Raises
        ------
        Misconfigured
            There is no such topic, or a field has no column; nothing was sent.
        Retry, Stop
            Kafka did not take every row; says from which row on to publish again.
        """
        from millstream.app.file_format import declared
        from millstream.app.publishing import publish_file
        from millstream.app.tables import bad_row_in_python, files_of, in_python

        with files_of(rows=rows) as (file,):
            assert file is not None
            published = publish_file(
                self.settings,
                topic,
                file,
                declared(file_format),
                dict(columns or {}),
                lambda text: warn(in_python(text)),
                first_row=first_row,
            )
        return replace(published, bad_rows=list(map(bad_row_in_python, published.bad_rows)))

    def consume(
        self, topic: str, *, follow: bool = False, last: int | None = None, timeout_s: float | None = None
    ) -> Iterator[dict[str, Any]]:
        """Iterate over a topic's committed records, decoded.

        Parameters
        ----------
        topic : str
            Such as ``predictions``, ``scored`` or ``dead-letters``.
        follow : bool
            Go on with new records, instead of stopping at the end.
        last : int, optional
            Begin with so many of the newest records, in order of their timestamps, 0 for new ones only; default: with
            the oldest that is retained.
        timeout_s : float, optional
            Stop once no record came for so many seconds.

        Yields
        ------
        dict
            The record's fields; ``undecodable`` and ``why`` where its bytes are no record.

        Raises
        ------
        Misconfigured, Retry
            There is no such topic, or Kafka cannot be reached.
        """
        from millstream.app.consuming import Consumption

        records = Consumption(self.settings, topic)
        newest = records.newest(last) if last is not None else []
        return _chained(newest, records.rest(follow, timeout_s) if follow or last is None else iter(()))

    def online_features(
        self, entities: Sequence[Mapping[str, Any]] | pl.DataFrame | pd.DataFrame, features: Sequence[str] | None = None
    ) -> pl.DataFrame:
        """Read online features of entities, as any Feast client does.

        Parameters
        ----------
        entities : DataFrame or sequence of mapping
            One row per entity: its join keys, such as ``[{"customer_id": 7}]``.
        features : sequence of str, optional
            Columns, as in `Project.features`; default: all that the keys reach.

        Returns
        -------
        polars.DataFrame
            One row per entity: the join keys and the features, null where nothing is stored.

        Raises
        ------
        Misconfigured
            A key or a feature is not declared, or the feature repo was not applied.
        Retry
            The online store cannot be reached.
        """
        import polars as pl

        from millstream.app.online_features import read_online

        if not isinstance(entities, Sequence):
            entities = (entities if isinstance(entities, pl.DataFrame) else pl.from_pandas(entities)).to_dicts()
        read = read_online(self.settings, self.assembly.declaration, entities, features)
        keys = {name: [row[name] for row in entities] for name in entities[0]}
        return pl.DataFrame({**keys, **read}, strict=False)

    def alerts(self, *, follow: bool = False, everything: bool = False) -> Iterator[dict[str, Any]]:
        """Iterate over the incidents that are open, the newest alert of each.

        Parameters
        ----------
        follow : bool
            Go on with new alerts.
        everything : bool
            Incidents that have ended as well.

        Yields
        ------
        dict
            The alert's fields; ``acknowledged`` and ``silenced`` are who did so, or None.

        Raises
        ------
        Misconfigured, Retry
            There are no topics of alerts, or Kafka cannot be reached.
        """
        from millstream.app.alert_lookup import iter_alerts, open_topic

        return iter_alerts(open_topic(self.settings), follow, everything)

    def quality(self) -> pl.DataFrame:
        """Return how good the scores were, on the labels known so far.

        Returns
        -------
        polars.DataFrame
            One row per figure: the fields of the contract ``quality``.

        Raises
        ------
        Misconfigured, Retry
            There is no topic of quality, or Kafka cannot be reached.
        """
        from millstream.app.quality_figures import figures_frame, read_figures

        return figures_frame(read_figures(self.settings))

    @contextmanager
    def serve(
        self,
        *,
        kafka: str | Mapping[str, str] | None = None,
        redis: str | None = None,
        model: Model | int | None = None,
        stages: Sequence[str] = (),
        in_process: bool = False,
    ) -> Iterator[Self]:
        """Start the servers that the settings do not name, create the topics, and run the stages until the block ends.

        Servers that were started here are stopped at the end, with their data kept; the stages have committed what
        they did.

        Parameters
        ----------
        kafka : str or mapping of str to str, optional
            Bootstrap servers, or librdkafka settings, of the cluster to use within the block; default: as the settings
            say, else an embedded broker.
        redis : str, optional
            URL of the online store to use within the block; default: as the settings say, else an embedded Valkey.
        model : Model or int, optional
            Make this version champion before the stages start.
        stages : sequence of str
            Default: all.
        in_process : bool
            Run the stages in a thread of this process, instead of in worker processes of their own.

        Yields
        ------
        Project
            This project.

        Raises
        ------
        Misconfigured, Retry, Stop
            Something is missing, a server does not come up, or a worker has left; its log is named.
        """
        from millstream.app.serve_block import serve_block

        before = self.settings, self.assembly
        options = {"bootstrap.servers": kafka} if isinstance(kafka, str) else dict(kafka or {})
        if options or redis is not None:
            given = {name: getattr(self.settings, name) for name in self.settings.model_fields_set}
            given |= {"kafka": {**self.settings.kafka, **options}} | ({} if redis is None else {"redis_url": redis})
            self.settings = load_settings({}, **given)
            self.assembly = assemble(self.settings)
        try:
            version = None if model is None else int(version_text(model))
            with serve_block(self.settings, self.assembly, version, stages, in_process):
                yield self
        finally:
            self.settings, self.assembly = before

    def run(self, stages: Sequence[str] = ()) -> None:
        """Run stages in this process until SIGTERM or Ctrl-C, as ``millstream run`` does; `serve` does all of it.

        Parameters
        ----------
        stages : sequence of str
            Default: all.

        Raises
        ------
        Misconfigured, Retry
            Something is missing; nothing was consumed.
        Stop
            A stage must not go on; nothing it had not committed is lost.
        """
        from millstream.app.running import run_stages

        asyncio.run(run_stages(self.settings, stages, asyncio.Event(), process_goes_on=True))


def _chained(first: Sequence[dict[str, Any]], rest: Iterator[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    yield from first
    yield from rest
