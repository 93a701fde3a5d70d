-- Owners: who is alive, who is fenced off, who holds what.
-- Tables: owners, leases, messages (schema.sql).  Owners are as many as worker slots, so they may be scanned.

-- name: register
INSERT INTO owners (name, deadline, queues) VALUES (?1, ?2, ?3)
ON CONFLICT (name) DO UPDATE SET deadline = ?2, queues = ?3 WHERE condemned_at IS NULL

-- name: beat
UPDATE owners SET deadline = ?2, queues = ?3 WHERE name = ?1 AND condemned_at IS NULL

-- name: find
SELECT id, condemned_at IS NOT NULL FROM owners WHERE name = ?

-- name: condemn
UPDATE owners SET condemned_at = ?2 WHERE name = ?1 AND condemned_at IS NULL

-- name: holds
SELECT 1 FROM leases WHERE owner = ? LIMIT 1

-- name: forget
DELETE FROM owners WHERE id = ?

-- name: forget_condemned
DELETE FROM owners
WHERE condemned_at < ? AND NOT EXISTS (SELECT 1 FROM leases WHERE leases.owner = owners.id)

-- name: expired
SELECT name FROM owners
WHERE (condemned_at IS NULL AND deadline < ?)
   OR (condemned_at < ? AND EXISTS (SELECT 1 FROM leases WHERE leases.owner = owners.id))
LIMIT ?

-- name: leased
SELECT leases.tag, messages.queue, messages.raw
FROM owners CROSS JOIN leases ON leases.owner = owners.id CROSS JOIN messages ON messages.id = leases.message
WHERE owners.name = ? ORDER BY leases.tag LIMIT ?

-- name: serving
SELECT queues FROM owners WHERE condemned_at IS NULL AND deadline >= ?
