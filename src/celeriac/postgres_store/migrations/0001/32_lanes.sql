-- Lanes: messages that wait beside their queue.  Table: messages (10_tables.sql).
--
-- A lane is a queue whose name is the queue's, a separator (chr(31)), and its own, so that a range of names has all lanes of a
-- queue.  What is unparked becomes a message of its queue again.

-- How many messages wait beside a queue, counted up to a bound.
CREATE FUNCTION {schema}.parked(name text, most bigint) RETURNS bigint
LANGUAGE plpgsql STABLE SET jit = off SET enable_seqscan = off SET enable_bitmapscan = off AS $$
BEGIN
    RETURN (SELECT count(*) FROM (
        SELECT FROM {schema}.messages m
        WHERE m.owner IS NULL AND m.queue > name || chr(31) AND m.queue < name || chr(32) LIMIT most) AS bounded);
END
$$;

-- Lanes that have messages, up to so many of each queue: from a random place on and around, since their names begin with digests.
CREATE FUNCTION {schema}.lanes(wanted text[], most integer) RETURNS TABLE (queue text, lane text, waiting bigint)
LANGUAGE plpgsql VOLATILE SET jit = off SET enable_seqscan = off SET enable_bitmapscan = off AS $$
#variable_conflict use_column
DECLARE
    wish text;
    start text;
    place text COLLATE "C";
    bound text;
    number integer;
BEGIN
    FOREACH wish IN ARRAY wanted LOOP
        start := wish || chr(31) || lpad(to_hex(floor(random() * 4294967296)::bigint), 8, '0');
        number := 0;
        FOR round IN 1 .. 2 LOOP
            place := CASE round WHEN 1 THEN start ELSE wish || chr(31) END;
            bound := CASE round WHEN 1 THEN wish || chr(32) ELSE start END;
            WHILE number < most LOOP
                SELECT m.queue INTO place FROM {schema}.messages m
                WHERE m.owner IS NULL AND m.queue > place AND m.queue < bound ORDER BY m.queue, m.priority, m.id LIMIT 1;
                EXIT WHEN NOT FOUND;
                number := number + 1;
                queue := wish;
                lane := substr(place, length(wish) + 2);
                waiting := (SELECT count(*) FROM (
                    SELECT FROM {schema}.messages m WHERE m.owner IS NULL AND m.queue = place LIMIT 1000) AS bounded);
                RETURN NEXT;
            END LOOP;
        END LOOP;
    END LOOP;
END
$$;

-- Lease messages from lanes: the first so many of each.
CREATE FUNCTION {schema}.unpark(owner_name text, lanes text[], homes text[], mosts integer[])
RETURNS TABLE (place integer, tag bigint, raw bytea)
LANGUAGE plpgsql SET jit = off SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off AS $$
#variable_conflict use_column
DECLARE
    me bigint;
BEGIN
    PERFORM pg_advisory_xact_lock_shared(hashtext('{schema}.owners'), hashtext(owner_name));
    SELECT o.id INTO me FROM {schema}.owners o WHERE o.name = owner_name AND o.condemned_at IS NULL;
    IF me IS NULL THEN
        RAISE EXCEPTION 'owner % is not registered, or its leases were taken over', owner_name USING ERRCODE = 'CL001';
    END IF;
    FOR i IN 1 .. cardinality(lanes) LOOP
        RETURN QUERY
        WITH head AS MATERIALIZED (
            SELECT h.place, nextval('{schema}.tags') AS tag
            FROM (
                SELECT m.ctid AS place FROM {schema}.messages m
                WHERE m.owner IS NULL AND m.queue = lanes[i]
                ORDER BY m.queue, m.priority, m.id LIMIT mosts[i] FOR UPDATE SKIP LOCKED
            ) AS h
        )
        UPDATE {schema}.messages m SET owner = me, tag = head.tag, queue = homes[i] FROM head WHERE m.ctid = head.place
        RETURNING i, m.tag, m.raw;
    END LOOP;
END
$$;
