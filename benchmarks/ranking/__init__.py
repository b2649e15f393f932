"""Widths of one budget, trained and scored, and how the two orders agree."""
