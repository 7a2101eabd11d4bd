-- What is the last value of each plane in the order of offsets, where event times are out of order?
-- Reads departures_late.
select
  key as tailnum,
  flight_id,
  carrier,
  dep_delay,
  sched_dep,
  actual_dep
from departures_late
qualify row_number() over (partition by key order by "offset" desc) = 1
