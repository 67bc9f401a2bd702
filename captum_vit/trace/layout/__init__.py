"""Where the tokens of the first block come from in the input: measured by running the embedding."""
