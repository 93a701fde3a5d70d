-- Read and write the key-value store.  Table: keyvalues (postgres_store/migrations/0001/48_keys.sql).

-- name: read
SELECT 0::bigint, NULL::bytea, NULL::bigint, extract(epoch FROM clock_timestamp())::float8
UNION ALL
SELECT n.n, k.value, k.version, NULL
FROM unnest(%s) WITH ORDINALITY AS n (name, n)
JOIN {schema}.keyvalues k ON k.space = %s AND k.name = n.name
WHERE k.expires IS NULL OR k.expires > clock_timestamp()

-- name: create
INSERT INTO {schema}.keyvalues AS k (space, name, value, expires)
VALUES (%(space)s, %(name)s, %(value)s, {schema}.after(%(ttl)s))
ON CONFLICT (space, name) DO UPDATE
SET version = excluded.version, value = excluded.value, expires = excluded.expires WHERE k.expires <= clock_timestamp()
RETURNING version

-- name: change
UPDATE {schema}.keyvalues
SET version = nextval('{schema}.versions'), value = %(value)s, expires = {schema}.after(%(ttl)s)
WHERE space = %(space)s AND name = %(name)s AND version = %(version)s AND (expires IS NULL OR expires > clock_timestamp())
RETURNING version

-- name: drop
DELETE FROM {schema}.keyvalues
WHERE space = %(space)s AND name = %(name)s AND version = %(version)s AND (expires IS NULL OR expires > clock_timestamp())
RETURNING 1

-- name: is_absent
SELECT 1 WHERE NOT EXISTS (
    SELECT FROM {schema}.keyvalues
    WHERE space = %(space)s AND name = %(name)s AND (expires IS NULL OR expires > clock_timestamp()))

-- name: claim
SELECT value FROM {schema}.claim_keys(%s, %s, %s, %s, %s, %s)

-- name: apply
SELECT {schema}.apply_keys(%s, %s, %s, %s, %s)

-- name: names
SELECT name FROM {schema}.keyvalues
WHERE space = %s AND (expires IS NULL OR expires > clock_timestamp()) ORDER BY name

-- name: expire
WITH gone AS (
    DELETE FROM {schema}.keyvalues WHERE ctid = ANY (ARRAY(
        SELECT ctid FROM {schema}.keyvalues WHERE expires <= clock_timestamp()
        ORDER BY expires LIMIT %s FOR UPDATE SKIP LOCKED))
    RETURNING 1
)
SELECT count(*) FROM gone
