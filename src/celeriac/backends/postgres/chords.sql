-- Counts of chords.  Tables: chords, chord_parts (postgres_store/migrations/0001/45_chords.sql).

-- name: start
INSERT INTO {schema}.chords AS c (group_id, size, at) VALUES (%s, %s, clock_timestamp())
ON CONFLICT (group_id) DO UPDATE SET
    size = excluded.size, at = excluded.at, done = false,
    grown = CASE WHEN c.done THEN 0 ELSE c.grown END,
    counted = CASE WHEN c.done THEN 0 ELSE c.counted END,
    claim = CASE WHEN c.done THEN NULL ELSE c.claim END

-- name: grow
INSERT INTO {schema}.chords AS c (group_id, grown, at) VALUES (%s, %s, clock_timestamp())
ON CONFLICT (group_id) DO UPDATE SET grown = c.grown + excluded.grown, claim = NULL, at = excluded.at WHERE NOT c.done

-- name: count
SELECT place FROM {schema}.count_parts(%s, %s, %s, %s, %s) AS place ORDER BY place

-- name: parts
SELECT payload FROM {schema}.chord_parts WHERE group_id = %s ORDER BY position, task_id

-- name: finish
SELECT {schema}.finish_chords(%s)
