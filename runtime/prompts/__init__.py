"""Prompts: A1111's syntax, any length, weights, textual inversion, blends, and embeddings of the caller's own."""
