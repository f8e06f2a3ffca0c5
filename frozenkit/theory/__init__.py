"""What can be said about features, and promised about heads: divergences between domains, geometry of classes,
generalisation bounds."""
