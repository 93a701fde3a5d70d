-- Version 2: the key-value store.
--
--   keyvalues  one row per key.  A write takes a new id, which is the entry's version: ids are never used twice.
--              expires is seconds since the epoch; NULL: never.

CREATE TABLE keyvalues (
    id      INTEGER PRIMARY KEY AUTOINCREMENT,
    space   TEXT NOT NULL,
    name    TEXT NOT NULL,
    value   BLOB NOT NULL,
    expires REAL,
    UNIQUE (space, name)
);
CREATE INDEX keyvalues_expires ON keyvalues (expires) WHERE expires IS NOT NULL;
