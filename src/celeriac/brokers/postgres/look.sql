-- Look and purge.  Tables: messages, scheduled, owners (postgres_store/migrations).
--
-- What waits is counted one by one up to a bound, in the index.  Beyond it the planner's estimate has to do.

-- name: ready
SELECT q.n,
    (SELECT count(*) FROM (
        SELECT FROM {schema}.messages m WHERE m.owner IS NULL AND m.queue = q.name LIMIT %(bound)s) AS bounded),
    (SELECT count(*) FROM (SELECT FROM {schema}.scheduled s WHERE s.queue = q.name LIMIT %(bound)s) AS bounded),
    (SELECT count(*) FROM {schema}.owners o
        WHERE o.condemned_at IS NULL AND o.deadline >= statement_timestamp() AND q.name = ANY (o.queues)),
    (SELECT extract(epoch FROM statement_timestamp() - m.queued_at)::float8 FROM {schema}.messages m
        WHERE m.owner IS NULL AND m.queue = q.name ORDER BY m.queue, m.priority, m.id LIMIT 1)
FROM unnest(%(queues)s) WITH ORDINALITY AS q (name, n) ORDER BY q.n

-- name: any_ready
SELECT {schema}.any_ready(%s)

-- name: leased_count
SELECT count(*) FROM {schema}.messages m WHERE m.owner IS NOT NULL

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
