-- Lease: messages from the heads of queues to an owner.
-- Tables: messages (10_tables.sql).  Tags are numbers of one sequence, so they ascend and none comes twice.
--
-- Rows that another session has just locked are passed over.  The caller has planning by statistics turned off: those of a
-- queue's table are always of another moment.

CREATE FUNCTION {schema}.lease(me bigint, wanted text[], most integer)
RETURNS TABLE (tag bigint, queue text, raw bytea)
LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE
    firsts smallint[];
    level smallint;
    missing integer := most;
    got integer;
BEGIN
    IF cardinality(wanted) = 1 THEN
        RETURN QUERY
        WITH head AS MATERIALIZED (
            SELECT h.place, nextval('{schema}.tags') AS tag
            FROM (
                SELECT m.ctid AS place FROM {schema}.messages m
                WHERE m.owner IS NULL AND m.queue = wanted[1]
                ORDER BY m.queue, m.priority, m.id LIMIT most FOR UPDATE SKIP LOCKED
            ) AS h
        )
        UPDATE {schema}.messages m SET owner = me, tag = head.tag FROM head WHERE m.ctid = head.place
        RETURNING m.tag, m.queue, m.raw;
        RETURN;
    END IF;
    -- The priority that comes next in each queue; the lowest of them goes first, in the order of the queues.
    firsts := ARRAY(
        SELECT {schema}.next_priority(q.name, (-32768)::smallint)
        FROM unnest(wanted) WITH ORDINALITY AS q (name, n) ORDER BY q.n
    );
    LOOP
        level := (SELECT min(f.p) FROM unnest(firsts) AS f (p));
        EXIT WHEN level IS NULL OR missing <= 0;
        FOR i IN 1 .. cardinality(wanted) LOOP
            CONTINUE WHEN firsts[i] IS DISTINCT FROM level;
            RETURN QUERY
            WITH head AS MATERIALIZED (
                SELECT h.place, nextval('{schema}.tags') AS tag
                FROM (
                    SELECT m.ctid AS place FROM {schema}.messages m
                    WHERE m.owner IS NULL AND m.queue = wanted[i] AND m.priority = level
                    ORDER BY m.queue, m.priority, m.id LIMIT missing FOR UPDATE SKIP LOCKED
                ) AS h
            )
            UPDATE {schema}.messages m SET owner = me, tag = head.tag FROM head WHERE m.ctid = head.place
            RETURNING m.tag, m.queue, m.raw;
            GET DIAGNOSTICS got = ROW_COUNT;
            missing := missing - got;
            EXIT WHEN missing <= 0;
            firsts[i] := {schema}.next_priority(wanted[i], level);
        END LOOP;
    END LOOP;
END
$$;

-- The lowest priority above a given one that a queue has messages of.
CREATE FUNCTION {schema}.next_priority(name text, after smallint) RETURNS smallint
LANGUAGE sql STABLE AS $$
    SELECT m.priority FROM {schema}.messages m
    WHERE m.owner IS NULL AND m.queue = name AND m.priority > after
    ORDER BY m.queue, m.priority, m.id LIMIT 1
$$;

-- Whether any of these queues has a message.
CREATE FUNCTION {schema}.any_ready(wanted text[]) RETURNS boolean
LANGUAGE plpgsql STABLE SET jit = off SET enable_seqscan = off AS $$
DECLARE
    name text;
BEGIN
    FOREACH name IN ARRAY wanted LOOP
        PERFORM 1 FROM {schema}.messages m
        WHERE m.owner IS NULL AND m.queue = name ORDER BY m.queue, m.priority, m.id LIMIT 1;
        IF FOUND THEN
            RETURN true;
        END IF;
    END LOOP;
    RETURN false;
END
$$;
