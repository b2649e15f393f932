"""What a run shows while it works, and who else is told."""
