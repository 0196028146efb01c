"""Registered operators, their implementations in PyTorch for a CPU and for any device, and attention."""
