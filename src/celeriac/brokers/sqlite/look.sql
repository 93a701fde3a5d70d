-- Look and purge.  Tables: queues, ready, messages, leases, scheduled (schema.sql).

-- name: counts
SELECT ready, scheduled FROM queues WHERE name = ?

-- name: next_queued_at
SELECT messages.queued_at FROM ready CROSS JOIN messages ON messages.id = ready.id
WHERE ready.queue = ? ORDER BY ready.priority, ready.id LIMIT 1

-- name: leased_count
SELECT count(*) FROM leases

-- name: some_ready
SELECT priority, id FROM ready WHERE queue = ? ORDER BY priority, id LIMIT ?

-- name: drop_ready
DELETE FROM ready WHERE queue = ? AND priority = ? AND id = ?

-- name: first_scheduled
SELECT due, raw FROM scheduled WHERE queue = ? ORDER BY due LIMIT ?

-- name: some_scheduled
SELECT id FROM scheduled WHERE queue = ? LIMIT ?
