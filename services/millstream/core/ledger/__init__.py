"""The label ledger: label sets, their resolution, and the examples to publish."""
