"""MoTE on CLIP: classify videos against any labels, and train the model that does it."""
