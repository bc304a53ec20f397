"""spaCy components of diffdecode, found by spaCy through entry points."""
