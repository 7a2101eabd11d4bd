"""References: bare loops that do the same work as the engine, as fast as they could be written."""
