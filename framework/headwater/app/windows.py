"""Windows to give to `stream.window(…)`: `headwater.windows.Tumbling(60)`…"""

from __future__ import annotations

from headwater.stream.window import Calendar as Calendar
from headwater.stream.window import Count as Count
from headwater.stream.window import Hopping as Hopping
from headwater.stream.window import Session as Session
from headwater.stream.window import Sliding as Sliding
from headwater.stream.window import Tumbling as Tumbling
