"""Commands between Stanza's checkpoints and spaCy pipelines."""
