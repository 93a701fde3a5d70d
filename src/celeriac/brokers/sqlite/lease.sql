-- Lease: messages from the heads of queues to an owner.
-- Tables: messages, ready, leases, owners (schema.sql).

-- name: owner
SELECT id, next_tag FROM owners WHERE name = ? AND condemned_at IS NULL

-- name: first_priority
SELECT priority FROM ready WHERE queue = ? AND priority > ? ORDER BY priority LIMIT 1

-- name: head
SELECT ready.id, messages.raw FROM ready CROSS JOIN messages ON messages.id = ready.id
WHERE ready.queue = ? AND ready.priority = ? ORDER BY ready.id LIMIT ?

-- name: take_head
DELETE FROM ready WHERE queue = ? AND priority = ? AND id <= ?

-- name: add_lease
INSERT INTO leases (owner, tag, message) VALUES (?, ?, ?)

-- name: advance_tag
UPDATE owners SET next_tag = ? WHERE id = ?

-- name: has_ready
SELECT 1 FROM ready WHERE queue = ? LIMIT 1
