"""LightningModules: steps and logging; the training of experts and their losses."""
