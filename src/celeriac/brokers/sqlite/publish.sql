-- Publish: messages to the tail of their queues, or into the schedule.
-- Tables: messages, ready, scheduled (schema.sql).  The tail is the highest id: all that waits or is leased has a lower one.

-- name: last_id
SELECT max(id) FROM messages

-- name: add_message
INSERT INTO messages (id, queue, priority, queued_at, raw) VALUES (?, ?, ?, ?, ?)

-- name: add_ready
INSERT INTO ready (id, queue, priority) VALUES (?, ?, ?)

-- name: add_scheduled
INSERT INTO scheduled (queue, priority, due, raw) VALUES (?, ?, ?, ?)
