"""The language model of `language_model.py`, its cuts and its page."""
