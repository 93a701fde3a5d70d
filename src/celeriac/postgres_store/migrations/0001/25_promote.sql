-- Promote: what is due, from the schedule to the tails of its queues, oldest due first.
-- Tables: scheduled, messages (10_tables.sql).  Returns the names of the queues, once for each message.

CREATE FUNCTION {schema}.promote(wanted text[], most integer) RETURNS SETOF text
LANGUAGE plpgsql SET jit = off SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off AS $$
DECLARE
    moment timestamptz := clock_timestamp();
BEGIN
    RETURN QUERY
    WITH due AS MATERIALIZED (
        SELECT found.place
        FROM unnest(wanted) AS q (name)
        CROSS JOIN LATERAL (
            SELECT s.ctid AS place, s.due, s.id FROM {schema}.scheduled s
            WHERE s.queue = q.name AND s.due <= moment
            ORDER BY s.due, s.id LIMIT most FOR UPDATE SKIP LOCKED
        ) AS found
        ORDER BY found.due, found.id LIMIT most
    ), gone AS (
        DELETE FROM {schema}.scheduled s USING due WHERE s.ctid = due.place RETURNING s.due, s.id, s.queue, s.priority, s.raw
    )
    INSERT INTO {schema}.messages (queue, priority, queued_at, raw)
    SELECT g.queue, g.priority, moment, g.raw FROM gone g ORDER BY g.due, g.id
    RETURNING messages.queue;
END
$$;
