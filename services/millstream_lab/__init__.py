"""The lab: what proves the engine and is no part of it; the engine never imports it.

`bench` measures speed, `chaos` kills workers and checks the topics, `evaluation` measures how good models are,
`detectors` measures the drift monitors, `simulation` publishes the reference domain's stream. Each adds its commands to
``millstream`` by an entry point of the group ``millstream.commands``.
"""
