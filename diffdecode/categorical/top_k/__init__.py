"""Continuous top-k operators: one operator a file."""
