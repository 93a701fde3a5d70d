-- Put results.  Table: results (10_tables.sql).
--
-- No task may be named twice in one call.  A guarded write keeps a SUCCESS that is already stored; only that, because a
-- FAILURE may be the lost run of a message that was replayed since, and its new result must count.  Rows are written in the
-- order of their ids, so that two batches with the same tasks wait for each other and do not lock each other out.

CREATE FUNCTION {schema}.put_results(ids text[], states text[], payloads bytea[], guards boolean[]) RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
    moment timestamptz := clock_timestamp();
BEGIN
    IF false = ANY (guards) THEN
        INSERT INTO {schema}.results (task_id, state, at, payload)
        SELECT r.id, r.state, moment, r.payload
        FROM unnest(ids, states, payloads, guards) AS r (id, state, payload, guarded)
        WHERE NOT r.guarded ORDER BY r.id COLLATE "C"
        ON CONFLICT (task_id) DO UPDATE SET state = excluded.state, at = excluded.at, payload = excluded.payload;
    END IF;
    IF true = ANY (guards) THEN
        INSERT INTO {schema}.results (task_id, state, at, payload)
        SELECT r.id, r.state, moment, r.payload
        FROM unnest(ids, states, payloads, guards) AS r (id, state, payload, guarded)
        WHERE r.guarded ORDER BY r.id COLLATE "C"
        ON CONFLICT (task_id) DO UPDATE SET state = excluded.state, at = excluded.at, payload = excluded.payload
        WHERE results.state <> 'SUCCESS';
    END IF;
END
$$;
