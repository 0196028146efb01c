"""Live sources, read by a process that can be killed: cameras and network streams, whose frames are dropped if late."""
