"""The label ledger's arithmetic: label sets joined in any order, what they come to, what to publish."""
