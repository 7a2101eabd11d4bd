-- Which planes had been seen up to and including an instant, how often, first and last when?
-- Reads departures, and $as_of. A departure exactly at the instant counts.
select
  key as tailnum,
  count(*) as n,
  min(timestamp) as first_seen,
  max(timestamp) as last_seen
from departures
where timestamp <= $as_of::timestamp
group by key
