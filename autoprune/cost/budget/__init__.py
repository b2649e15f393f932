"""Limits on metrics, and widths repaired onto them."""
