-- Enqueue: messages to the tail of their queues, or into the schedule when they are due later.
-- Tables: messages, scheduled (10_tables.sql).  Without dues (NULL) all are for now.

CREATE FUNCTION {schema}.enqueue(queues text[], priorities smallint[], dues float8[], raws bytea[]) RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
    moment timestamptz := clock_timestamp();
BEGIN
    IF dues IS NULL THEN
        INSERT INTO {schema}.messages (queue, priority, queued_at, raw)
        SELECT m.queue, m.priority, moment, m.raw FROM unnest(queues, priorities, raws) AS m (queue, priority, raw);
        RETURN;
    END IF;
    INSERT INTO {schema}.scheduled (queue, priority, due, raw)
    SELECT m.queue, m.priority, to_timestamp(m.due), m.raw
    FROM unnest(queues, priorities, dues, raws) AS m (queue, priority, due, raw)
    WHERE to_timestamp(m.due) > moment;
    INSERT INTO {schema}.messages (queue, priority, queued_at, raw)
    SELECT m.queue, m.priority, moment, m.raw
    FROM unnest(queues, priorities, dues, raws) AS m (queue, priority, due, raw)
    WHERE m.due IS NULL OR to_timestamp(m.due) <= moment;
END
$$;
