"""The parts of `benchmarks/faults.py`: one file for each way to do harm."""
