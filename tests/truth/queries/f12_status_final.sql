-- What is known of each flight in the end? The last record by offset counts; a tombstone leaves no row.
-- Reads flight_status.
select
  key as flight_id,
  carrier,
  status,
  dep_delay,
  timestamp as updated
from flight_status
qualify row_number() over (partition by key order by "offset" desc) = 1 and not deleted
