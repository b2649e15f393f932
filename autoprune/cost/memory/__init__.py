"""Peak memory and stored size."""
