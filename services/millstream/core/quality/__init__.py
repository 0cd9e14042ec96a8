"""Quality figures of scores from labelled examples, independent of order, batching and repetition."""
