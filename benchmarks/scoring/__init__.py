"""What `evaluators.py` measures: the cost of a candidate, and races."""
