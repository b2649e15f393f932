"""Second moments of what the layers of a network read, gathered in one pass; criteria and inheritance work on them."""
