"""Controllers around a controller: fewer dimensions, or near the best trial so far."""
