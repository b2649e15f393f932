"""Searches whose true scores are known: a table of trained networks, and synthetic functions."""
