"""The continuous relaxation of beam search (soft beam search 2018): dense, truncated, and as a decoder."""
