"""spaCy components whose hard decisions other components can train."""
