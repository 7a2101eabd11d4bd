"""The command line: parse, call, print. A file a command or noun; nothing here knows how a thing is done."""
