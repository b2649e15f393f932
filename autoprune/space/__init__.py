"""What can be cut: from a model to a verified space of widths, and from widths to networks."""
