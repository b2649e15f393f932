"""The searched network outside the run: plain text for the architecture, safetensors for the weights, no pickle."""
