"""Drift monitoring: detectors, a false-alarm budget, incidents and alerts."""
