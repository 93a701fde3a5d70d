-- Read and write the key-value store.
-- Tables: keyvalues (upgrade_2.sql).

-- name: get
SELECT value, id FROM keyvalues WHERE space = ?1 AND name = ?2 AND (expires IS NULL OR expires > ?3)

-- name: put
INSERT OR REPLACE INTO keyvalues (space, name, value, expires) VALUES (?1, ?2, ?3, ?4)

-- name: drop
DELETE FROM keyvalues WHERE space = ?1 AND name = ?2

-- name: names
SELECT name FROM keyvalues WHERE space = ?1 AND (expires IS NULL OR expires > ?2) ORDER BY name

-- name: any_expired
SELECT 1 FROM keyvalues WHERE expires <= ?1 LIMIT 1

-- name: expire
DELETE FROM keyvalues WHERE id IN (SELECT id FROM keyvalues WHERE expires <= ?1 ORDER BY expires LIMIT ?2)
