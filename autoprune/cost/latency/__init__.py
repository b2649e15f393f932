"""Latency predicted from a profile of the device."""
