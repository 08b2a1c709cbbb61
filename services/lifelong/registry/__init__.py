"""Versions: where their bytes are, which one is live, and who may change that."""
