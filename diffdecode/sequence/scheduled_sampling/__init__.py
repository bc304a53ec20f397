"""Decoders fed a mixture of the gold words and their own (differentiable scheduled sampling 2017)."""
