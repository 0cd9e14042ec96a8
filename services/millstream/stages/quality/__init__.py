"""Quality figures of predictions, from labelled examples."""
