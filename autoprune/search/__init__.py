"""The search itself: session (the map), ledger, selection, run directory, progress and engines."""
