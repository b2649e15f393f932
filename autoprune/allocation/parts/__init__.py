"""What rules share."""
