"""Checks of values, compilation and speed on the device at hand, each section in a process of its own.

``benchmarks/device_check.py`` runs all sections, ``mote-fast doctor --gpu`` the quick ones.
"""
