"""Tar shards: read from end to end, divided over ranks and workers."""
