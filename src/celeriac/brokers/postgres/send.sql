-- Send: messages to the tail of their queues, or into the schedule; and what brings them there again.
-- Tables: messages, scheduled, dead (postgres_store/migrations).

-- name: publish
SELECT {schema}.enqueue(%s, %s, %s, %s)

-- name: publish_many
COPY {schema}.messages (queue, priority, raw) FROM STDIN (FORMAT binary)

-- name: publish_claimed
SELECT place, value FROM {schema}.enqueue_claimed(%s, %s, %s, %s, %s, %s, %s, %s, %s, %s)

-- name: publish_within
SELECT place, length FROM {schema}.publish_within(%s, %s, %s, %s, %s, %s, %s, %s, %s)

-- name: promote
SELECT queue FROM {schema}.promote(%s, %s) AS queue

-- name: next_due
SELECT extract(epoch FROM min(first.due) - statement_timestamp())::float8
FROM unnest(%s) AS q (name)
CROSS JOIN LATERAL (
    SELECT s.due FROM {schema}.scheduled s WHERE s.queue = q.name ORDER BY s.queue, s.due, s.id LIMIT 1
) AS first

-- name: first_scheduled
SELECT extract(epoch FROM due)::float8, raw FROM {schema}.scheduled WHERE queue = %s
ORDER BY queue, due, id LIMIT %s

-- name: announce
SELECT {schema}.announce(%s, %s)
