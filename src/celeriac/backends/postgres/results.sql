-- Results and records of groups.  Tables: results, groups, waiters (postgres_store/migrations).

-- name: put
SELECT {schema}.put_results(%s, %s, %s, %s)

-- name: announce
SELECT {schema}.announce(NULL, %s)

-- name: fetch
SELECT r.task_id, r.payload FROM {schema}.results r
WHERE r.task_id = ANY (%s) AND r.at > statement_timestamp() - make_interval(secs => %s)

-- name: forget
DELETE FROM {schema}.results WHERE task_id = ANY (%s)

-- name: seen
SELECT r.task_id, r.state, r.at FROM {schema}.results r WHERE r.task_id = ANY (%s)

-- name: put_group
INSERT INTO {schema}.groups (group_id, at, payload) VALUES (%s, clock_timestamp(), %b)
ON CONFLICT (group_id) DO UPDATE SET at = excluded.at, payload = excluded.payload

-- name: group
SELECT payload FROM {schema}.groups WHERE group_id = %s AND at > statement_timestamp() - make_interval(secs => %s)

-- name: forget_group
DELETE FROM {schema}.groups WHERE group_id = %s

-- name: watch
INSERT INTO {schema}.waiters (task_id, channel) SELECT w.id, %s FROM unnest(%s) AS w (id) ON CONFLICT DO NOTHING

-- name: unwatch
DELETE FROM {schema}.waiters WHERE channel = %s
