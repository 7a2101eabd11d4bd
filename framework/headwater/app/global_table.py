"""GlobalTable: a table that every task has whole, so that it is joined by any key and nothing is sent anywhere."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from headwater.app.derived_table import DerivedTable
from headwater.core.errors import MisuseError
from headwater.core.place import users_line
from headwater.stream.plan import StreamPlan


class GlobalTable(DerivedTable):
    """A table made of a topic. Each join with it reads the topic whole; the table itself lies in partitions, as others do."""

    broadcast: StreamPlan = StreamPlan(())

    def take_source(self, plan: StreamPlan, value_type: Any) -> None:
        """Take what the table is made of, and the type of its rows."""
        super().take_source(plan, value_type)
        self.broadcast = replace(plan, broadcast=True)

    def _part(self, frame: Any) -> Any:
        """Return the part in hand. Raises MisuseError where that isn't the whole table: most keys would seem to be missing."""
        part = super()._part(frame)
        if part.partitions > 1:
            raise MisuseError(
                f"global table {self.name!r} was read by agent {frame.agent!r} at {users_line()}, where only partition "
                f"{part.partition} of {part.partitions} is at hand; join the stream with it, which has all rows: "
                f"@app.agent(topic.stream().join({self.name}, on=…))"
            )
        return part
