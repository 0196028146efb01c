"""Foundations of the library: files, weights, processes, seeds and devices; nothing here is specific to video."""
