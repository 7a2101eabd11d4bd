"""What people declare, in faust's words: apps, topics, agents, tables. Thin over stream/ and table/, without the engine."""
