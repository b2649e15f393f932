"""The verdict: the winner against uniform pruning, trained alike, with the uncertainty of the difference."""
