-- What is each plane's mean departure delay, over how many departures, and when did it last leave?
-- Reads departures; one row a tail number.
select
  key as tailnum,
  count(*) as n,
  sum(dep_delay)::bigint as total,
  avg(dep_delay)::double as mean,
  max(timestamp) as last_ts
from departures
group by key
