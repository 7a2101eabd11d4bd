"""One partition's records in offset order, from the log, the archive, or both as one."""
