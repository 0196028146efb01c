"""DALI, where it serves: one pipeline for GPU and CPU, and the loader around it."""
