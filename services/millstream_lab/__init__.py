"""The lab: what proves the engine and is no part of it; the engine never imports it.

`bench` measures speed, `chaos` kills workers and checks the topics, `evaluation` measures how good models are,
`detectors` measures the drift monitors, `simulation` publishes the reference domain's stream. `COMMANDS` adds
theirs to ``millstream``, through an entry point of the group ``millstream.commands``.
"""

from millstream.cli.lazy_group import Listed

COMMANDS = {
    "bench": Listed(
        "Measure throughput, latency, recovery, memory, the online view, scaling and labels, on servers of its own.",
        ("millstream_lab.bench",),
    ),
    "chaos": Listed(
        "Break a cluster of its own on purpose, and check that nothing is lost or doubled.", ("millstream_lab.chaos",)
    ),
    "evaluate": Listed("How good the models are on the reference stream.", ("millstream_lab.evaluation",)),
    "simulate": Listed(
        "Simulate card payments as the Fraud Detection Handbook does.", ("millstream_lab.simulation.command",)
    ),
    "drift": Listed("", ("millstream_lab.detectors.bench",)),
}
