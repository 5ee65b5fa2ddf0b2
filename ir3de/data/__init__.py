"""Domains of text: sources, splits without near-copies across them, tokens on disk, and the data module."""
