"""Parts of the log, each by itself."""
