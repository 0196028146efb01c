"""Training: a typed configuration, the loop that it configures, and the state that a run saves."""
