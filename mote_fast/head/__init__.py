"""The head: frame features to temporal features to scores against class features."""
