"""Pieces that several controllers share."""
