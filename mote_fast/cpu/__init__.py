"""The operators on a CPU: vectorised PyTorch with hand-written backwards, in reused memory."""
