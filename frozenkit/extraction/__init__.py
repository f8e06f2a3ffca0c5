"""Images × network → features: one pass through the backbone, and the cache that makes it the only one. What
leaves this room are the arrays of `frozenkit.features`."""
