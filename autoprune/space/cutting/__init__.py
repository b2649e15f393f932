"""From widths to a network: slices of the user's own module, or of its rewritten graph."""
