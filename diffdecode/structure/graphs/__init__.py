"""Semantic dependency graphs: decisions, projections, losses and the layer."""
