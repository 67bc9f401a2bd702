"""Function modes that see the torch calls of a pass, and compute some of them otherwise."""
