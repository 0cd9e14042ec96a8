"""Monitoring: scored events and labels in, alerts about drift, quality and traffic out."""
