"""A pass without some of its tokens."""
