"""Plots of the analyses as PNG files; matplotlib is imported for the first plot."""
