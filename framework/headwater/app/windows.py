"""Windows to give to `stream.window(…)`: `headwater.windows.Tumbling(60)`…"""

from __future__ import annotations

from headwater.stream.window import Calendar, Count, Hopping, Session, Sliding, Tumbling

NAMES = (Calendar, Count, Hopping, Session, Sliding, Tumbling)
"""All kinds there are."""
