-- Look and purge.  Tables: messages, scheduled, owners (postgres_store/migrations).
--
-- What waits is counted one by one up to a bound, in the index.  Beyond it the planner's estimate has to do.

-- name: depths
SELECT ready, later, consumers, age, waiting FROM {schema}.depths(%s, %s)

-- name: any_ready
SELECT {schema}.any_ready(%s)

-- name: leased_count
SELECT {schema}.leased_count()

-- name: purge_ready
WITH gone AS (
    DELETE FROM {schema}.messages m WHERE m.ctid = ANY (ARRAY(
        SELECT x.ctid FROM {schema}.messages x WHERE x.owner IS NULL AND x.queue = %s
        ORDER BY x.queue, x.priority, x.id LIMIT %s FOR UPDATE SKIP LOCKED))
    RETURNING 1
)
SELECT count(*) FROM gone

-- name: purge_scheduled
WITH gone AS (
    DELETE FROM {schema}.scheduled s WHERE s.ctid = ANY (ARRAY(
        SELECT x.ctid FROM {schema}.scheduled x WHERE x.queue = %s
        ORDER BY x.queue, x.due, x.id LIMIT %s FOR UPDATE SKIP LOCKED))
    RETURNING 1
)
SELECT count(*) FROM gone

-- name: ping
SELECT 1

-- name: estimate_ready
EXPLAIN (FORMAT JSON) SELECT FROM {schema}.messages m WHERE m.owner IS NULL AND m.queue = %s

-- name: estimate_scheduled
EXPLAIN (FORMAT JSON) SELECT FROM {schema}.scheduled s WHERE s.queue = %s
