"""Layers that read another component's parse and send a gradient back to it."""
