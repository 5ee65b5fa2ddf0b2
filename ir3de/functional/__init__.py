"""Tensors in, tensors out: counts, ridge, votes, losses. No Lightning, no files, no globals."""
