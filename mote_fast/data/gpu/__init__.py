"""Decoding on a GPU: which decoder does it, the videos that it takes, and the loader and the reader that use it."""
