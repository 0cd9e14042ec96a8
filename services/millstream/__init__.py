"""Millstream: the streaming engine for a Feast feature repo.

`open` returns the project of a folder; `Project.replay` runs a table of events through its stages, with no server::

    import millstream

    project = millstream.open()
    replayed = project.replay("events.parquet")
    replayed.scored, replayed.dead_letters, replayed.predictions

The data path, in order::

    transactions        events a producer publishes, keyed by customer
      validate          decode, check the contract; what is wrong goes to dead-letters
      featurize         exact windows per customer
      (re-key)          transactions.terminal: the same event, keyed by the next entity
      featurize         exact windows per terminal
      score             on-demand features, then the champion, the online model beside it, or the declared rule
    scored              the complete record: event, features as served, every score
    predictions         the public contract: id, score, decision, model, times
      (view)            the latest features per entity, written behind the commit to Feast's Redis layout
    labels              what events turned out to be: late, repeated, corrected, retracted
      join              predictions wait in a ledger on disk until their labels come
    examples            the scored record, what became known of it, and what that replaces
      (re-key)          examples.terminal: back to featurize, for features made of labels
      learn             a River model, one example at a time in one total order
    snapshots           the model with its metrics and its offset, signed; score takes them up between two batches
      quality           how good everybody's scores were, on the labels known so far
    quality             the newest figure of each model, version, arm, day, maturity and group
      measure           scored events counted by hour, partition by partition
    measures            those counts, in one order
      monitor           counts and examples held against the model's reference
    alerts              incidents that began, changed or ended, within a false-alarm budget
    dead-letters        every input that could not go on: reason and original bytes

`millstream.topology` holds every topic and stage as a value.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from millstream.app.project import Project, Replay, open
    from millstream.app.publishing import Published
    from millstream.app.training import Model
    from millstream.errors import MillstreamError, Misconfigured, Retry
    from millstream.runtime.agents.app import App

__all__ = ["App", "MillstreamError", "Misconfigured", "Model", "Project", "Published", "Replay", "Retry", "open"]

_MODULES = {
    "App": "runtime.agents.app",
    "Model": "app.training",
    "Project": "app.project",
    "Published": "app.publishing",
    "Replay": "app.project",
    "open": "app.project",
}
"""Where each name is defined; errors are in `millstream.errors`."""


def __getattr__(name: str) -> object:
    # A worker or a command imports no more than it uses.
    if name in __all__:
        module = importlib.import_module(f"{__name__}.{_MODULES.get(name, 'errors')}")
        return getattr(module, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
