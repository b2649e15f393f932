"""From a model to its width groups: the graph is recorded once, channels are followed through it."""
