"""The Fraud Detection Handbook's simulation of card transactions, row for row."""
