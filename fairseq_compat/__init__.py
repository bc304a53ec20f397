"""Fixes that let fairseq run on current Python, PyTorch and NumPy."""
