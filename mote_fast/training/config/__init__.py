"""The configuration of a training run: YAML and overrides to one frozen value."""
