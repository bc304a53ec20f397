"""Files: how outputs are written."""
