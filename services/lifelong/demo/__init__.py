"""The demonstration: a real stream of facts that the model does not know, learned before your eyes."""
