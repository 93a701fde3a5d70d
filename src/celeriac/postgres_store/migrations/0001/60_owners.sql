-- Owners: who is alive, and who is fenced off.  Tables: owners, messages (10_tables.sql).

-- Add an owner, or keep it; returns false when a condemned one has the name.
CREATE FUNCTION {schema}.register(owner_name text, served text[], seconds float8) RETURNS boolean
LANGUAGE plpgsql SET jit = off SET enable_seqscan = off SET enable_bitmapscan = off AS $$
BEGIN
    -- Condemned owners that hold nothing are kept for a day, should nobody unregister them.
    DELETE FROM {schema}.owners o
    WHERE o.condemned_at < clock_timestamp() - interval '1 day'
        AND (SELECT m.tag FROM {schema}.messages m WHERE m.owner = o.id LIMIT 1) IS NULL;
    INSERT INTO {schema}.owners AS o (name, deadline, queues)
    VALUES (owner_name, clock_timestamp() + make_interval(secs => seconds), served)
    ON CONFLICT (name) DO UPDATE SET deadline = excluded.deadline, queues = excluded.queues WHERE o.condemned_at IS NULL;
    RETURN FOUND;
END
$$;

-- Fence an owner off, after its turn that is under way.
CREATE FUNCTION {schema}.condemn(owner_name text) RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_advisory_xact_lock(hashtext('{schema}.owners'), hashtext(owner_name));
    UPDATE {schema}.owners o SET condemned_at = clock_timestamp() WHERE o.name = owner_name AND o.condemned_at IS NULL;
END
$$;

-- Forget an owner that holds nothing; returns false when it does.
CREATE FUNCTION {schema}.unregister(owner_name text) RETURNS boolean
LANGUAGE plpgsql SET jit = off SET enable_seqscan = off AS $$
BEGIN
    PERFORM pg_advisory_xact_lock(hashtext('{schema}.owners'), hashtext(owner_name));
    DELETE FROM {schema}.owners o
    WHERE o.name = owner_name AND (SELECT m.tag FROM {schema}.messages m WHERE m.owner = o.id LIMIT 1) IS NULL;
    RETURN NOT EXISTS (SELECT FROM {schema}.owners o WHERE o.name = owner_name);
END
$$;
