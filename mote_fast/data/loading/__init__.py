"""Videos to batches: the order of an epoch, watched worker processes, reports of faults."""
