-- The tables of a Celeriac schema: queues, schedule, leases, dead letters, results and chords.
--
-- A message is in exactly one of: messages without an owner (ready), messages with an owner (leased), scheduled, dead.
--
--   messages     what is ready or leased.  Leasing writes owner and tag into the row and settling deletes it, so that a
--                message costs one insert, one update and one delete, and its bytes, when they are long, are not copied.
--                Each of the two indexes holds only its half: the heads of queues stay small however much is leased, and
--                the other way round.  Ids grow, so the lowest id is the oldest message; a message that is put back keeps
--                its id and so its place.  There is no primary key: nothing is ever looked up by id, and an index that
--                nobody reads would be a third of the cost of a message.
--   owners       one row per worker slot; condemned_at is NULL while it is alive.  Deadlines are by this server's clock.
--   scheduled    what is due later.
--   dead         dead letters.  An id is never used twice, so that replaying twice cannot send another.
--   results      one row per task.
--   chords       size is NULL until it is known, grown comes on top; claim is the part that completed the chord (task id,
--                slash, position).
--   waiters      who waits for which results, and the channel to wake them on.  Not logged: after a crash nobody waits.
--
-- Names compare by bytes (COLLATE "C"): it is faster, and no upgrade of the system's locales spoils an index.

CREATE SEQUENCE {schema}.tags;

CREATE TABLE {schema}.messages (
    id        bigint GENERATED ALWAYS AS IDENTITY,
    owner     bigint,
    tag       bigint,
    queued_at timestamptz NOT NULL,
    priority  smallint NOT NULL,
    queue     text COLLATE "C" NOT NULL,
    raw       bytea NOT NULL
);
CREATE INDEX messages_ready ON {schema}.messages (queue, priority, id) WHERE owner IS NULL;
CREATE UNIQUE INDEX messages_leased ON {schema}.messages (owner, tag) WHERE owner IS NOT NULL;

CREATE TABLE {schema}.owners (
    id           bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name         text COLLATE "C" NOT NULL UNIQUE,
    deadline     timestamptz NOT NULL,
    condemned_at timestamptz,
    queues       text[] NOT NULL
);

CREATE TABLE {schema}.scheduled (
    id       bigint GENERATED ALWAYS AS IDENTITY,
    due      timestamptz NOT NULL,
    priority smallint NOT NULL,
    queue    text COLLATE "C" NOT NULL,
    raw      bytea NOT NULL
);
CREATE INDEX scheduled_due ON {schema}.scheduled (queue, due, id);

CREATE TABLE {schema}.dead (
    id        bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at        timestamptz NOT NULL,
    attempts  integer NOT NULL,
    crashes   integer NOT NULL,
    priority  smallint NOT NULL,
    queue     text COLLATE "C" NOT NULL,
    reason    text NOT NULL,
    error     text NOT NULL,
    task      text NOT NULL,
    task_id   text NOT NULL,
    traceback text NOT NULL,
    worker    text NOT NULL,
    raw       bytea NOT NULL
);
CREATE INDEX dead_at ON {schema}.dead (at);

CREATE TABLE {schema}.results (
    at      timestamptz NOT NULL,
    task_id text COLLATE "C" PRIMARY KEY,
    state   text COLLATE "C" NOT NULL,
    payload bytea NOT NULL
);
CREATE INDEX results_at ON {schema}.results (at);

CREATE TABLE {schema}.groups (
    at       timestamptz NOT NULL,
    group_id text COLLATE "C" PRIMARY KEY,
    payload  bytea NOT NULL
);
CREATE INDEX groups_at ON {schema}.groups (at);

CREATE TABLE {schema}.chords (
    at         timestamptz NOT NULL,
    claimed_at timestamptz,
    size       integer,
    grown      integer NOT NULL DEFAULT 0,
    counted    integer NOT NULL DEFAULT 0,
    done       boolean NOT NULL DEFAULT false,
    group_id   text COLLATE "C" PRIMARY KEY,
    claim      text COLLATE "C"
);
CREATE INDEX chords_at ON {schema}.chords (done, at);

CREATE TABLE {schema}.chord_parts (
    position integer NOT NULL,
    group_id text COLLATE "C" NOT NULL,
    task_id  text COLLATE "C" NOT NULL,
    payload  bytea NOT NULL,
    PRIMARY KEY (group_id, position, task_id)
);

CREATE UNLOGGED TABLE {schema}.waiters (
    at      timestamptz NOT NULL DEFAULT now(),
    task_id text COLLATE "C" NOT NULL,
    channel text COLLATE "C" NOT NULL,
    PRIMARY KEY (task_id, channel)
);
CREATE INDEX waiters_channel ON {schema}.waiters (channel);

-- Messages are gone within seconds and mostly do not compress well; trying costs more than it saves.
ALTER TABLE {schema}.messages ALTER raw SET STORAGE EXTERNAL;

-- A queue's table is small and turns over many times an hour, so it is vacuumed by a fixed number of dead rows and not by
-- a share of its size, and without pauses.  The space that a vacuum frees is used again, so that the table stays as large
-- as what was ever in it at once plus some tens of thousands of rows.
ALTER TABLE {schema}.messages SET (
    autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 20000, autovacuum_vacuum_cost_delay = 0,
    autovacuum_vacuum_insert_scale_factor = 0, autovacuum_vacuum_insert_threshold = 100000,
    autovacuum_analyze_scale_factor = 0, autovacuum_analyze_threshold = 50000,
    toast.autovacuum_vacuum_scale_factor = 0, toast.autovacuum_vacuum_threshold = 20000,
    toast.autovacuum_vacuum_cost_delay = 0
);
ALTER TABLE {schema}.scheduled SET (
    autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 5000, autovacuum_vacuum_cost_delay = 0
);
-- Room in each page for the next versions of rows that change in place.
ALTER TABLE {schema}.owners SET (fillfactor = 40, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 200);
ALTER TABLE {schema}.chords SET (fillfactor = 60, autovacuum_vacuum_scale_factor = 0.05);
ALTER TABLE {schema}.waiters SET (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 2000);
-- A day of results is much: a fifth of it (the default) would be long in coming.
ALTER TABLE {schema}.results SET (autovacuum_vacuum_scale_factor = 0.05, autovacuum_vacuum_cost_delay = 0);
