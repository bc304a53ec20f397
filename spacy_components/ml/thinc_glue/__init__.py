"""What thinc lacks for torch modules and embeddings."""
