"""Which widths of a group are allowed, and which groups are tied."""
