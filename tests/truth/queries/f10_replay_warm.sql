-- What are the airlines' totals over everything? A run that nothing interrupted gives them, and so does a replay
-- that starts later with the tables as they were then. Reads departures.
select
  carrier,
  count(*) as n,
  sum(distance)::bigint as distance,
  avg(dep_delay)::double as mean
from departures
group by carrier
