"""Every cut is tried before it is offered."""
