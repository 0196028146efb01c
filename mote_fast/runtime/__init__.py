"""What the library stands on: files, weights, processes, seeds and devices; nothing here knows of video."""
