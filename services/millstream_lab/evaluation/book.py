"""What the Fraud Detection Handbook has published on the stream that the demo simulates.

References
----------
.. [1] Le Borgne, Siblini, Lebichot, Bontempi (2022), "Reproducible Machine Learning for Credit Card Fraud Detection:
       Practical Handbook", chapter 3, "Baseline fraud detection system": training from 25 July 2018, a week each of
       training, delay and test.
"""

from __future__ import annotations

from typing import Final

from millstream_lab.evaluation.protocol import Protocol

PROTOCOL: Final = Protocol(train_from_ms=1_532_476_800_000)  # 2018-07-25T00:00:00Z

SIZES: Final = {"train": (67_240, 598), "test": (58_264, 385)}
"""Events and frauds of each part, by which one knows that stream and protocol are the book's."""

METRICS: Final = ("auc", "average_precision", "card_precision_at_100")

PUBLISHED: Final = {
    "logistic regression": dict(zip(METRICS, (0.871, 0.606, 0.291), strict=True)),
    "random forest": dict(zip(METRICS, (0.867, 0.658, 0.287), strict=True)),
}
"""With all 15 inputs, scaled: amount, weekend, night, and counts, means and risks of customer and terminal."""
