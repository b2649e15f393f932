"""A run from start to end: prepare (nothing is written), then the phases, each of which can be resumed."""
