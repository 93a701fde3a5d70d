-- Expire: delete what has outlived its time, a bounded number of rows at once.
-- Tables: results, groups, chords, chord_parts, waiters (postgres_store/migrations).
--
-- Rows that somebody else deletes just now are passed over, so that several nodes do not wait for each other.

-- name: results
WITH gone AS (
    DELETE FROM {schema}.results WHERE ctid = ANY (ARRAY(
        SELECT ctid FROM {schema}.results WHERE at <= statement_timestamp() - make_interval(secs => %s)
        ORDER BY at LIMIT %s FOR UPDATE SKIP LOCKED))
    RETURNING 1
)
SELECT count(*) FROM gone

-- name: groups
WITH gone AS (
    DELETE FROM {schema}.groups WHERE ctid = ANY (ARRAY(
        SELECT ctid FROM {schema}.groups WHERE at <= statement_timestamp() - make_interval(secs => %s)
        ORDER BY at LIMIT %s FOR UPDATE SKIP LOCKED))
    RETURNING 1
)
SELECT count(*) FROM gone

-- name: parts
WITH old AS MATERIALIZED (
    SELECT group_id FROM {schema}.chords
    WHERE done = %s AND at <= statement_timestamp() - make_interval(secs => %s)
    ORDER BY done, at LIMIT %s
), gone AS (
    DELETE FROM {schema}.chord_parts WHERE ctid = ANY (ARRAY(
        SELECT p.ctid FROM old JOIN {schema}.chord_parts p USING (group_id) LIMIT %s FOR UPDATE OF p SKIP LOCKED))
    RETURNING 1
)
SELECT count(*) FROM gone

-- name: chords
WITH gone AS (
    DELETE FROM {schema}.chords WHERE ctid = ANY (ARRAY(
        SELECT c.ctid FROM {schema}.chords c
        WHERE c.done = %s AND c.at <= statement_timestamp() - make_interval(secs => %s)
            AND NOT EXISTS (SELECT FROM {schema}.chord_parts p WHERE p.group_id = c.group_id)
        ORDER BY c.done, c.at LIMIT %s FOR UPDATE OF c SKIP LOCKED))
    RETURNING 1
)
SELECT count(*) FROM gone

-- name: anything_old
SELECT {schema}.anything_old(%s, %s)

-- name: waiters
DELETE FROM {schema}.waiters WHERE at < statement_timestamp() - interval '1 hour'
