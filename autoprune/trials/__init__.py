"""A search on disk and in its order: the session (the map), its ledger, and which trial wins."""
