"""What runs a network that is measured: one file per backend."""
