"""When something happens in a long video: windows over shared frame features, rejection, segments, files."""
