"""A part of a model run again: from a place, from a block, for the CLS row alone."""
