"""How a model runs to be explained: left as it was found, watched, described."""
