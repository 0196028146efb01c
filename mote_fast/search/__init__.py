"""Videos found by words, by a video or by a vector: an index on disk, and exact search over it."""
