"""GlobalTable: a table that every task has whole, so that it is joined by any key and nothing is sent anywhere."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from headwater.app.derived_table import DerivedTable
from headwater.stream.plan import StreamPlan


class GlobalTable(DerivedTable):
    """A table made of a topic. Each join with it reads the topic whole; the table itself lies in partitions, as others do."""

    broadcast: StreamPlan = StreamPlan(())

    def take_source(self, plan: StreamPlan, value_type: Any) -> None:
        """Take what the table is made of, and the type of its rows."""
        super().take_source(plan, value_type)
        self.broadcast = replace(plan, broadcast=True)
