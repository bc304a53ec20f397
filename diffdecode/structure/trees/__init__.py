"""Dependency trees: decisions, marginals, samples, projections, losses and the layer."""
