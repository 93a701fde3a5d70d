-- Mailboxes and bindings: what kombu's exchanges need beside the broker's queues, for remote control and events.
--
--   mailboxes         queues that belong to one listener (a worker's control mailbox, the replies to a client, a monitor's
--                     events).  seen_at is when the listener last showed up; one that stays away longer than idle seconds is
--                     forgotten with all that it holds.  ttl is how many seconds a message is worth keeping.
--   mailbox_messages  what waits in them, in the order of id.
--   bindings          which queues an exchange sends to.  Those of task queues stay; those of mailboxes go with them.
--
-- The first two are not logged: whoever asks a worker something asks again, and a listener whose mailbox a crash of the server
-- took opens it again.

CREATE UNLOGGED TABLE {schema}.mailboxes (
    seen_at timestamptz NOT NULL,
    idle    float8 NOT NULL,
    ttl     float8 NOT NULL,
    name    text COLLATE "C" PRIMARY KEY
);

CREATE UNLOGGED TABLE {schema}.mailbox_messages (
    id      bigint GENERATED ALWAYS AS IDENTITY,
    at      timestamptz NOT NULL,
    mailbox text COLLATE "C" NOT NULL,
    raw     bytea NOT NULL
);
CREATE INDEX mailbox_messages_mailbox ON {schema}.mailbox_messages (mailbox, id);

CREATE TABLE {schema}.bindings (
    exchange    text COLLATE "C" NOT NULL,
    routing_key text COLLATE "C" NOT NULL,
    pattern     text COLLATE "C" NOT NULL,
    queue       text COLLATE "C" NOT NULL,
    PRIMARY KEY (exchange, routing_key, pattern, queue)
);
CREATE INDEX bindings_queue ON {schema}.bindings (queue);

ALTER TABLE {schema}.mailboxes SET (fillfactor = 50);
ALTER TABLE {schema}.mailbox_messages SET (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 2000);

-- Forget mailboxes with all that belongs to them: those of these names, and with NULL those whose listener has gone without
-- a word.
CREATE FUNCTION {schema}.mailbox_close(names text[]) RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
    IF names IS NULL THEN
        names := ARRAY(
            SELECT m.name FROM {schema}.mailboxes m
            WHERE m.seen_at + make_interval(secs => m.idle) < clock_timestamp() LIMIT 100
        );
    END IF;
    DELETE FROM {schema}.mailboxes m WHERE m.name = ANY (names);
    DELETE FROM {schema}.mailbox_messages m WHERE m.mailbox = ANY (names);
    DELETE FROM {schema}.bindings b WHERE b.queue = ANY (names);
END
$$;

-- Put a message into mailboxes and drop what is too old there; returns the names that are no mailboxes.
CREATE FUNCTION {schema}.mailbox_put(names text[], message bytea) RETURNS SETOF text
LANGUAGE plpgsql AS $$
BEGIN
    DELETE FROM {schema}.mailbox_messages x USING {schema}.mailboxes m
    WHERE m.name = ANY (names) AND x.mailbox = m.name AND x.at < clock_timestamp() - make_interval(secs => m.ttl);
    INSERT INTO {schema}.mailbox_messages (mailbox, at, raw)
    SELECT m.name, clock_timestamp(), message FROM {schema}.mailboxes m WHERE m.name = ANY (names);
    RETURN QUERY
    SELECT n.name FROM unnest(names) AS n (name)
    WHERE NOT EXISTS (SELECT FROM {schema}.mailboxes m WHERE m.name = n.name);
END
$$;
