"""Gradient estimators of one choice among V: one estimator a file."""
