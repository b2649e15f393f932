"""What is done to inherited weights after the cut, before a candidate is scored."""
