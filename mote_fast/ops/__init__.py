"""Registered operators, their implementation on a CPU, and attention."""
