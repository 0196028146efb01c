"""Sections of ``benchmarks/device_check.py`` that need this checkout."""
