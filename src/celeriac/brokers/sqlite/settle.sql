-- Settle and release: leases to their end, or back to their queues.
-- Tables: leases, messages, ready (schema.sql).  A message that goes back keeps its id, and so its place.

-- name: held
SELECT tag, message FROM leases WHERE owner = ? AND tag BETWEEN ? AND ?

-- name: drop_lease
DELETE FROM leases WHERE owner = ? AND tag = ?

-- name: drop_message
DELETE FROM messages WHERE id = ?

-- name: rewrite_message
UPDATE messages SET raw = ? WHERE id = ?

-- name: back_to_ready
INSERT INTO ready (queue, priority, id) SELECT queue, priority, id FROM messages WHERE id = ?
