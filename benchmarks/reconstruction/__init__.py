"""Networks, peers and pages of the benchmarks on cut networks (`inheritance.py`, `criteria.py`)."""
