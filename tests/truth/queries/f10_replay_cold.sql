-- What are the airlines' totals of a replay that starts at an instant with empty tables?
-- Reads departures, and $start. A departure exactly at the instant is part of the replay.
select
  carrier,
  count(*) as n,
  sum(distance)::bigint as distance,
  avg(dep_delay)::double as mean
from departures
where timestamp >= $start::timestamp
group by carrier
