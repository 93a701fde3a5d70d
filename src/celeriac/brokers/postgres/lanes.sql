-- Lanes: messages that wait beside their queues.  Table: messages (postgres_store/migrations/0001/32_lanes.sql).

-- name: lanes
SELECT queue, lane, waiting FROM {schema}.lanes(%s, %s)

-- name: unpark
SELECT place, tag, raw FROM {schema}.unpark(%s, %s, %s, %s) ORDER BY tag
