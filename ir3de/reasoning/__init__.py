"""The reasoning setting: benchmarks of lm-eval answered by every expert once, and a routed bank as a model."""
