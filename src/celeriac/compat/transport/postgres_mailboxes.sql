-- Mailboxes and bindings of the kombu transport.
-- Tables: mailboxes, mailbox_messages, bindings (postgres_store/migrations/0001/80_mailboxes.sql).

-- name: forget_forsaken
SELECT {schema}.mailbox_close(NULL)

-- name: open
INSERT INTO {schema}.mailboxes (name, idle, ttl, seen_at) VALUES (%s, %s, %s, clock_timestamp())
ON CONFLICT (name) DO UPDATE SET idle = excluded.idle, ttl = excluded.ttl, seen_at = excluded.seen_at

-- name: seen
WITH seen AS (UPDATE {schema}.mailboxes SET seen_at = clock_timestamp() WHERE name = ANY (%s) RETURNING 1)
SELECT count(*) FROM seen

-- name: is_open
SELECT EXISTS (SELECT FROM {schema}.mailboxes WHERE name = %s)

-- name: close
SELECT {schema}.mailbox_close(%s)

-- name: put
SELECT name FROM {schema}.mailbox_put(%s, %b) AS name

-- name: announce
SELECT {schema}.announce(%s, NULL)

-- name: take
DELETE FROM {schema}.mailbox_messages WHERE ctid = (
    SELECT ctid FROM {schema}.mailbox_messages WHERE mailbox = %s ORDER BY mailbox, id LIMIT 1 FOR UPDATE SKIP LOCKED)
RETURNING raw

-- name: any
SELECT EXISTS (SELECT FROM {schema}.mailbox_messages WHERE mailbox = ANY (%s))

-- name: count
SELECT count(*) FROM {schema}.mailbox_messages WHERE mailbox = %s

-- name: empty
WITH gone AS (DELETE FROM {schema}.mailbox_messages WHERE mailbox = %s RETURNING 1)
SELECT count(*) FROM gone

-- name: bind
INSERT INTO {schema}.bindings (exchange, routing_key, pattern, queue) VALUES (%s, %s, %s, %s) ON CONFLICT DO NOTHING

-- name: unbind
DELETE FROM {schema}.bindings WHERE exchange = %s AND routing_key = %s AND queue = %s

-- name: table
SELECT routing_key, pattern, queue FROM {schema}.bindings WHERE exchange = %s
