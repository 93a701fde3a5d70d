-- Dead letters.  Tables: dead, messages (postgres_store/migrations).

-- name: count
SELECT count(*) FROM {schema}.dead

-- name: expire
WITH gone AS (
    DELETE FROM {schema}.dead WHERE id IN (
        SELECT id FROM {schema}.dead WHERE at < to_timestamp(%s) ORDER BY at LIMIT %s FOR UPDATE SKIP LOCKED
    ) RETURNING 1
)
SELECT count(*) FROM gone

-- name: page
SELECT id, queue, raw, reason, error, task, task_id, traceback, attempts, crashes, worker,
    extract(epoch FROM at)::float8
FROM {schema}.dead WHERE id < %s ORDER BY id DESC LIMIT %s

-- name: one
SELECT id, queue, raw, reason, error, task, task_id, traceback, attempts, crashes, worker,
    extract(epoch FROM at)::float8
FROM {schema}.dead WHERE id = %s

-- name: replay
WITH gone AS (
    DELETE FROM {schema}.dead WHERE id = %s RETURNING queue, priority, raw
), back AS (
    INSERT INTO {schema}.messages (queue, priority, queued_at, raw)
    SELECT gone.queue, gone.priority, clock_timestamp(), gone.raw FROM gone RETURNING messages.queue
)
SELECT queue FROM back

-- name: replay_instead
WITH gone AS (
    DELETE FROM {schema}.dead WHERE id = %s RETURNING id
)
SELECT %s::text FROM gone, {schema}.enqueue(%s, %s, %s, %s) AS done

-- name: discard
WITH gone AS (
    DELETE FROM {schema}.dead WHERE id = ANY (%s) RETURNING 1
)
SELECT count(*) FROM gone
