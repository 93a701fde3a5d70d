-- Promote: what is due, from the schedule to the tail of its queue.
-- Tables: scheduled, and those of publish.sql (schema.sql).

-- name: due
SELECT due, id FROM scheduled WHERE queue = ? AND due <= ? ORDER BY due LIMIT ?

-- name: payload
SELECT queue, priority, raw FROM scheduled WHERE id = ?

-- name: drop
DELETE FROM scheduled WHERE id = ?

-- name: next_due
SELECT due FROM scheduled WHERE queue = ? ORDER BY due LIMIT 1
