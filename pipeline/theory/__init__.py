"""Predictions for N → ∞, from the law of labels and predictions alone: no simulation, no files."""
