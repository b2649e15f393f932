"""What benchmarks/coverage.py walks: the models, how each tool is measured on one, and the table of it all."""
