"""Choosing on validation data, and the verdict on test data."""
