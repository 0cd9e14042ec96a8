"""Whether everything that stages need is there and fits, before anything is started or written."""

from __future__ import annotations

from millstream.app.assembly import Assembly, assemble
from millstream.app.label_stages import join_stage, quality_stage
from millstream.ports import LedgerStore
from millstream.settings import Settings


def assemble_runnable(settings: Settings) -> Assembly:
    """Return what `assemble` does, when every stage that ``millstream run`` starts can be built from it.

    ``doctor``, ``init``, ``features apply`` and ``features show`` ask this, so that none of them passes what ``run``
    refuses.

    Raises
    ------
    Misconfigured
        As `assemble`; or naming the setting or the online model's declaration that is wrong.
    """
    assembly = assemble(settings)
    resolver = assembly.resolver()
    for plan in assembly.topology.stages:
        assembly.stage(plan, resolver)
    if assembly.topology.joins:
        join_stage(assembly, resolver, _no_store)
        quality_stage(assembly, resolver)
    if assembly.declares_online_model:
        assembly.online_model()
    return assembly


def _no_store(partition: int) -> LedgerStore:
    raise AssertionError(f"the ledger of partition {partition} was opened by a check")
