"""What has changed, how sure one may be of it, and what is told: detectors, a false-alarm budget, incidents."""
