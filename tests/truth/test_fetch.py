"""The fetch command's arithmetic on a handful of flights; the year itself was compared column by column once."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

import pyarrow.parquet as pq

from apps.flights import fetch, streams

HEADER = (
    "year,month,day,dep_time,sched_dep_time,dep_delay,arr_time,sched_arr_time,arr_delay,carrier,flight,tailnum,"
    "origin,dest,air_time,distance,hour,minute,time_hour"
)
ON_TIME = "2013,1,1,517,515,2,830,819,11,UA,1545,N14228,EWR,IAH,227,1400,5,15,2013-01-01T10:00:00Z"
EARLY = "2013,1,31,1855,1905,-10,2000,2010,-10,B6,7,N3,JFK,BOS,40,187,19,5,2013-02-01T00:00:00Z"
CANCELLED = "2013,1,1,NA,600,NA,NA,901,NA,B6,125,NA,JFK,FLL,NA,1069,6,0,2013-01-01T11:00:00Z"
CSV = "\n".join([HEADER, ON_TIME, EARLY, CANCELLED]).encode() + b"\n"


def test_a_departure_carries_its_actual_time_and_its_plane_as_key() -> None:
    first, second = streams.departures(streams.read_flights(CSV)).to_pylist()
    assert first["key"] == "N14228"
    assert first["flight_id"] == "UA1545-EWR-20130101"
    assert first["timestamp"] == first["actual_dep"] == datetime(2013, 1, 1, 10, 17)
    assert first["sched_dep"] == datetime(2013, 1, 1, 10, 15)
    assert second["timestamp"] == datetime(2013, 1, 31, 23, 55)


def test_late_departures_keep_the_order_and_carry_the_plan() -> None:
    late = streams.departures(streams.read_flights(CSV), event_time="sched_dep").to_pylist()
    assert [record["key"] for record in late] == ["N14228", "N3"]
    assert late[1]["timestamp"] == datetime(2013, 2, 1, 0, 5)


def test_a_cancelled_flight_ends_in_a_tombstone_an_hour_after_the_plan() -> None:
    status = streams.flight_status(streams.read_flights(CSV)).to_pylist()
    cancelled = [record for record in status if record["key"] == "B6125-JFK-20130101"]
    assert [(record["status"], record["deleted"]) for record in cancelled] == [
        ("scheduled", False),
        (None, True),
    ]
    assert cancelled[0]["timestamp"] == datetime(2013, 1, 1, 9)
    assert cancelled[1]["timestamp"] == datetime(2013, 1, 1, 12)
    assert cancelled[1]["carrier"] is None


def test_a_month_is_half_open(tmp_path: Path) -> None:
    late = streams.departures(streams.read_flights(CSV), event_time="sched_dep")
    assert [record["key"] for record in streams.within_month(late, "2013-01").to_pylist()] == ["N14228"]
    assert [record["key"] for record in streams.within_month(late, "2013-02").to_pylist()] == ["N3"]
    assert len(streams.within_month(late, "2013-12")) == 0


def test_a_written_stream_reads_back_with_rows_as_offsets(tmp_path: Path) -> None:
    path = tmp_path / "departures.parquet"
    written = streams.departures(streams.read_flights(CSV))
    fetch.write(written, path)
    back = pq.read_table(path)
    assert back["offset"].to_pylist() == [0, 1]
    assert back.drop_columns(["offset"]).to_pylist() == written.to_pylist()
