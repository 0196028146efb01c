"""Towers and head as one classifier, and the files that it is kept in."""
