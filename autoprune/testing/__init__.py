"""Test classes and small spaces, for this package and for authors of plug-ins; needs pytest."""
