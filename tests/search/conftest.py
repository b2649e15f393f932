"""Puts this folder on the path: `engines/` uses `fake_search`, too."""
