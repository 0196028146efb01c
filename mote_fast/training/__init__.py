"""Training: a typed configuration, the loop that it describes, and the state that a run leaves behind."""
