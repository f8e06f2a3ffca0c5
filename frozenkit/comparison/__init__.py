"""Frozen against what: controls, zero-shot, fine-tuning, the time each takes, the gap that is left, and what to do
about it."""
