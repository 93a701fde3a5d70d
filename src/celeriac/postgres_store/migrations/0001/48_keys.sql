-- The key-value store.
--
--   keyvalues  one row per key.  Each write takes a new version; versions are never used twice.  expires is NULL for a key that
--              stays; a row whose time is over counts as not there, until somebody writes it anew or expire.sql deletes it.
--
-- A held key's value is "<holder>\n<data>".  Keys are written in the order of their names, so that two calls with the same keys
-- wait for each other and do not lock each other out.

CREATE SEQUENCE {schema}.versions;

CREATE TABLE {schema}.keyvalues (
    version bigint NOT NULL DEFAULT nextval('{schema}.versions'),
    expires timestamptz,
    space   text COLLATE "C" NOT NULL,
    name    text COLLATE "C" NOT NULL,
    value   bytea NOT NULL,
    PRIMARY KEY (space, name)
) WITH (fillfactor = 70, autovacuum_vacuum_scale_factor = 0.05);
CREATE INDEX keyvalues_expires ON {schema}.keyvalues (expires) WHERE expires IS NOT NULL;

-- The moment so many seconds from now; NULL: never.
CREATE FUNCTION {schema}.after(seconds float8) RETURNS timestamptz
LANGUAGE sql VOLATILE AS $$ SELECT clock_timestamp() + make_interval(secs => seconds) $$;

-- Claim keys that nobody holds.  Rows with a NULL name claim nothing.  Returns the places (from 1) of keys that somebody holds,
-- with their values; those whose data are to be replaced have them replaced.
CREATE FUNCTION {schema}.claim_keys(
    spaces text[], names text[], holders text[], datas bytea[], ttls float8[], replaces boolean[]
) RETURNS TABLE (place integer, value bytea)
LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE
    wish record;
    found_value bytea;
BEGIN
    FOR wish IN
        SELECT w.*, convert_to(w.holder, 'UTF8') || '\x0a'::bytea AS head
        FROM unnest(spaces, names, holders, datas, ttls, replaces) WITH ORDINALITY
            AS w (space, name, holder, data, ttl, replaces, n)
        WHERE w.name IS NOT NULL ORDER BY w.space COLLATE "C", w.name COLLATE "C", w.n
    LOOP
        LOOP
            INSERT INTO {schema}.keyvalues AS k (space, name, value, expires)
            VALUES (wish.space, wish.name, wish.head || wish.data, {schema}.after(wish.ttl))
            ON CONFLICT (space, name) DO UPDATE
            SET version = excluded.version, value = excluded.value, expires = excluded.expires
            WHERE k.expires <= clock_timestamp();
            EXIT WHEN FOUND;
            SELECT k.value INTO found_value FROM {schema}.keyvalues k
            WHERE k.space = wish.space AND k.name = wish.name AND (k.expires IS NULL OR k.expires > clock_timestamp())
            FOR UPDATE;
            CONTINUE WHEN NOT FOUND;  -- it has just gone
            IF wish.replaces THEN
                found_value := substr(found_value, 1, position('\x0a'::bytea IN found_value)) || wish.data;
                UPDATE {schema}.keyvalues k
                SET version = nextval('{schema}.versions'), value = found_value, expires = {schema}.after(wish.ttl)
                WHERE k.space = wish.space AND k.name = wish.name;
            END IF;
            RETURN QUERY SELECT wish.n::integer, found_value;
            EXIT;
        END LOOP;
    END LOOP;
END
$$;

-- Write held keys (or delete them, where the value is NULL) whose holders still have them.
CREATE FUNCTION {schema}.apply_keys(spaces text[], names text[], holders text[], contents bytea[], ttls float8[]) RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
    change record;
BEGIN
    FOR change IN
        SELECT w.*, convert_to(w.holder, 'UTF8') || '\x0a'::bytea AS head
        FROM unnest(spaces, names, holders, contents, ttls) WITH ORDINALITY AS w (space, name, holder, content, ttl, n)
        ORDER BY w.space COLLATE "C", w.name COLLATE "C", w.n
    LOOP
        IF change.content IS NULL THEN
            DELETE FROM {schema}.keyvalues k
            WHERE k.space = change.space AND k.name = change.name
                AND substr(k.value, 1, length(change.head)) = change.head;
        ELSE
            UPDATE {schema}.keyvalues k
            SET version = nextval('{schema}.versions'), value = change.content, expires = {schema}.after(change.ttl)
            WHERE k.space = change.space AND k.name = change.name
                AND substr(k.value, 1, length(change.head)) = change.head
                AND (k.expires IS NULL OR k.expires > clock_timestamp());
        END IF;
    END LOOP;
END
$$;

-- Enqueue messages of which some are sent only if nobody holds their key; returns what claim_keys does.
CREATE FUNCTION {schema}.enqueue_claimed(
    queues text[], priorities smallint[], dues float8[], raws bytea[],
    spaces text[], names text[], holders text[], datas bytea[], ttls float8[], replaces boolean[]
) RETURNS TABLE (place integer, value bytea)
LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE
    held record;
    refused integer[] := '{}';
BEGIN
    FOR held IN SELECT c.place, c.value FROM {schema}.claim_keys(spaces, names, holders, datas, ttls, replaces) AS c LOOP
        refused := refused || held.place;
        RETURN QUERY SELECT held.place, held.value;
    END LOOP;
    IF cardinality(refused) < cardinality(raws) THEN
        PERFORM {schema}.enqueue(
            array_agg(m.queue ORDER BY m.n), array_agg(m.priority ORDER BY m.n), array_agg(m.due ORDER BY m.n),
            array_agg(m.raw ORDER BY m.n))
        FROM unnest(queues, priorities, dues, raws) WITH ORDINALITY AS m (queue, priority, due, raw, n)
        WHERE m.n <> ALL (refused);
    END IF;
END
$$;
