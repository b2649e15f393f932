"""What networks are for: data, objective and measure; one file per task."""
