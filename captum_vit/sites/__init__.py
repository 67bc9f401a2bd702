"""Places in a pass where tensors are read or replaced, and what hooks and modes share."""
