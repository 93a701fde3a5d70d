-- The schema of a Celeriac file: queues, schedule, leases, dead letters, results and chords in one SQLite database.
--
-- A message is in exactly one of: messages + ready, messages + leases, scheduled, dead.
--
--   messages   the payload of what is ready or leased.  Leasing moves only the small rows of ready and leases, so that
--              a message's bytes are written once and freed once.
--   ready      what can be leased, in the order of leasing.  Ids grow, so the lowest id is the oldest message; a
--              message that is put back keeps its id and so its place.
--   leases     what an owner holds.  A tag is never used twice by one owner.
--   owners     one row per worker slot; condemned_at is NULL while it is alive.  All times are seconds since the epoch.
--   queues     how many rows ready and scheduled hold per queue, kept by the triggers below: a count costs one row.
--   results    one row per task.  A write takes a new id, so ids are ordered by age, which is what expiry goes by.
--   chords     size is NULL until it is known, grown comes on top; claim is the part that completed the chord (task id, slash, index).
--
-- The version is PRAGMA user_version.

CREATE TABLE messages (
    id        INTEGER PRIMARY KEY,
    queue     TEXT NOT NULL,
    priority  INTEGER NOT NULL,
    queued_at REAL NOT NULL,
    raw       BLOB NOT NULL
);

CREATE TABLE ready (
    queue    TEXT NOT NULL,
    priority INTEGER NOT NULL,
    id       INTEGER NOT NULL,
    PRIMARY KEY (queue, priority, id)
) WITHOUT ROWID;

CREATE TABLE owners (
    id           INTEGER PRIMARY KEY AUTOINCREMENT,
    name         TEXT NOT NULL UNIQUE,
    deadline     REAL NOT NULL,
    condemned_at REAL,
    next_tag     INTEGER NOT NULL DEFAULT 1,
    queues       TEXT NOT NULL
);

CREATE TABLE leases (
    owner   INTEGER NOT NULL,
    tag     INTEGER NOT NULL,
    message INTEGER NOT NULL,
    PRIMARY KEY (owner, tag)
) WITHOUT ROWID;

CREATE TABLE scheduled (
    id       INTEGER PRIMARY KEY,
    queue    TEXT NOT NULL,
    priority INTEGER NOT NULL,
    due      REAL NOT NULL,
    raw      BLOB NOT NULL
);
CREATE INDEX scheduled_due ON scheduled (queue, due);

CREATE TABLE dead (
    id        INTEGER PRIMARY KEY AUTOINCREMENT,
    queue     TEXT NOT NULL,
    priority  INTEGER NOT NULL,
    raw       BLOB NOT NULL,
    reason    TEXT NOT NULL,
    error     TEXT NOT NULL,
    task      TEXT NOT NULL,
    task_id   TEXT NOT NULL,
    traceback TEXT NOT NULL,
    attempts  INTEGER NOT NULL,
    crashes   INTEGER NOT NULL,
    worker    TEXT NOT NULL,
    at        REAL NOT NULL
);
CREATE INDEX dead_at ON dead (at);

CREATE TABLE results (
    id      INTEGER PRIMARY KEY,
    task_id TEXT NOT NULL UNIQUE,
    state   TEXT NOT NULL,
    at      REAL NOT NULL,
    payload BLOB NOT NULL
);

CREATE TABLE groups (
    group_id TEXT PRIMARY KEY,
    at       REAL NOT NULL,
    payload  BLOB NOT NULL
);
CREATE INDEX groups_at ON groups (at);

CREATE TABLE chords (
    group_id   TEXT PRIMARY KEY,
    size       INTEGER,
    grown      INTEGER NOT NULL DEFAULT 0,
    counted    INTEGER NOT NULL DEFAULT 0,
    claim      TEXT,
    claimed_at REAL,
    done       INTEGER NOT NULL DEFAULT 0,
    at         REAL NOT NULL
);
CREATE INDEX chords_done ON chords (at) WHERE done;
CREATE INDEX chords_open ON chords (at) WHERE NOT done;

CREATE TABLE chord_parts (
    id       INTEGER PRIMARY KEY,
    group_id TEXT NOT NULL,
    position INTEGER NOT NULL,
    task_id  TEXT NOT NULL,
    payload  BLOB NOT NULL,
    UNIQUE (group_id, position, task_id)
);

CREATE TABLE queues (
    name      TEXT PRIMARY KEY,
    ready     INTEGER NOT NULL DEFAULT 0,
    scheduled INTEGER NOT NULL DEFAULT 0
) WITHOUT ROWID;

CREATE TRIGGER ready_added AFTER INSERT ON ready BEGIN
    INSERT INTO queues (name, ready) VALUES (NEW.queue, 1) ON CONFLICT (name) DO UPDATE SET ready = ready + 1;
END;
CREATE TRIGGER ready_removed AFTER DELETE ON ready BEGIN
    UPDATE queues SET ready = ready - 1 WHERE name = OLD.queue;
END;
CREATE TRIGGER scheduled_added AFTER INSERT ON scheduled BEGIN
    INSERT INTO queues (name, scheduled) VALUES (NEW.queue, 1)
    ON CONFLICT (name) DO UPDATE SET scheduled = scheduled + 1;
END;
CREATE TRIGGER scheduled_removed AFTER DELETE ON scheduled BEGIN
    UPDATE queues SET scheduled = scheduled - 1 WHERE name = OLD.queue;
END;
