"""Several cuts or runs beside each other: what they have in common is made once."""
