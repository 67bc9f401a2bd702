"""Looking inside one pass of a model, and leaving no trace."""
