"""The bank of experts: presets and recipe, loading, the average of weights, the loss table."""
