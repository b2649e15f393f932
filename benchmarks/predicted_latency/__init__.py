"""Predicted beside measured latency: what `latency.py` found."""
