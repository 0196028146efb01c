"""Towers and head as one classifier, and the files that store it."""
