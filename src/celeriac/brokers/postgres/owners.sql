-- Owners: who is alive, who is fenced off, who holds what.
-- Tables: owners, messages (postgres_store/migrations).  Owners are as many as worker slots, so they may be scanned.

-- name: register
SELECT {schema}.register(%s, %s, %s)

-- name: beat
WITH alive AS (
    UPDATE {schema}.owners o SET deadline = clock_timestamp() + make_interval(secs => %s), queues = %s
    FROM (SELECT x.id FROM {schema}.owners x WHERE x.name = ANY (%s) AND x.condemned_at IS NULL ORDER BY x.id FOR UPDATE) AS y
    WHERE o.id = y.id RETURNING o.name
)
SELECT name FROM alive

-- name: alive
SELECT name FROM {schema}.owners WHERE name = ANY (%s) AND condemned_at IS NULL

-- name: unregister
SELECT {schema}.unregister(%s)

-- name: condemn
SELECT {schema}.condemn(%s)

-- name: expired
SELECT name FROM {schema}.expired(%s, %s) AS name

-- name: leased
SELECT m.tag, m.queue, m.raw FROM {schema}.messages m
WHERE m.owner = (SELECT o.id FROM {schema}.owners o WHERE o.name = %s)
ORDER BY m.owner, m.tag LIMIT %s
