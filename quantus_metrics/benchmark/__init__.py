"""Models x methods x metrics x data, from a TOML file to a table and a report."""
