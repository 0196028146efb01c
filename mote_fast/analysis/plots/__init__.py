"""Drawings of the analyses as PNG files; matplotlib is loaded when the first one is drawn."""
