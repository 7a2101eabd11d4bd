-- Aggregate over the status table as of 4 instants: per carrier, rows by status; a correction must retract the old status and a tombstone its row. Input: flight_status
with t as (select unnest($instants::timestamp[]) as T),
 l as (select T, key, unnest(arg_max({'carrier':carrier,'status':status,'deleted':deleted},"offset")) from t join flight_status s on s.timestamp<=T group by 1,2)
 select T as as_of, carrier, status, count(*) n from l where not deleted group by all
