"""Tokenizers and embedding tables of published models: hub ids, folders, GGUF files, installed packages."""
