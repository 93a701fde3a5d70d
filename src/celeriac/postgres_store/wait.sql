-- Wait for messages (postgres_store/migrations/0001/70_announce.sql has the other side).  Tables: none; advisory locks that the
-- connection holds while it waits.

-- name: listen
LISTEN "{schema}.ready"

-- name: watch
SELECT hashtext(q.name)::text FROM unnest(%s) AS q (name),
    LATERAL (SELECT pg_advisory_lock_shared(hashtext('{schema}.ready'), hashtext(q.name))) AS locked

-- name: unwatch
SELECT pg_advisory_unlock_all()

-- name: unlisten
UNLISTEN *
