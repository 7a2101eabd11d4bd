"""Tables: their stores, their changelogs, and how state is rebuilt, asked for as of an instant, and printed."""
