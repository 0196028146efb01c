"""A video file to frames: exact frame counts, two decoding backends, folders of images."""
