"""How one task's inputs become one order: effective time, channels, groups and cuts."""
