-- Mailboxes and bindings of the kombu transport, beside the broker's tables in the same file.
--
--   mailboxes         queues that belong to one listener (a worker's control mailbox, the replies to a client, a monitor's
--                     events).  seen_at is when the listener last showed up; one that stays away longer than idle seconds is
--                     forgotten with all that it holds.  ttl is how many seconds a message is worth keeping.
--   mailbox_messages  what waits in them, in the order of (at, id).  All times are seconds since the epoch.
--   bindings          which queues an exchange sends to.  Those of task queues stay; those of mailboxes go with them.

-- name: create_mailboxes
CREATE TABLE IF NOT EXISTS mailboxes (
    name    TEXT PRIMARY KEY,
    idle    REAL NOT NULL,
    ttl     REAL NOT NULL,
    seen_at REAL NOT NULL
) WITHOUT ROWID

-- name: create_messages
CREATE TABLE IF NOT EXISTS mailbox_messages (
    id      INTEGER PRIMARY KEY,
    mailbox TEXT NOT NULL,
    at      REAL NOT NULL,
    raw     BLOB NOT NULL
)

-- name: create_messages_index
CREATE INDEX IF NOT EXISTS mailbox_messages_at ON mailbox_messages (mailbox, at, id)

-- name: create_bindings
CREATE TABLE IF NOT EXISTS bindings (
    exchange    TEXT NOT NULL,
    routing_key TEXT NOT NULL,
    pattern     TEXT NOT NULL,
    queue       TEXT NOT NULL,
    PRIMARY KEY (exchange, routing_key, pattern, queue)
) WITHOUT ROWID

-- name: create_bindings_index
CREATE INDEX IF NOT EXISTS bindings_queue ON bindings (queue)

-- name: open
INSERT INTO mailboxes (name, idle, ttl, seen_at) VALUES (?, ?, ?, ?)
ON CONFLICT (name) DO UPDATE SET idle = excluded.idle, ttl = excluded.ttl, seen_at = excluded.seen_at

-- name: seen
UPDATE mailboxes SET seen_at = ? WHERE name = ?

-- name: is_open
SELECT ttl FROM mailboxes WHERE name = ?

-- name: forsaken
SELECT name FROM mailboxes WHERE seen_at + idle < ? LIMIT 100

-- name: close
DELETE FROM mailboxes WHERE name = ?

-- name: unbind_queue
DELETE FROM bindings WHERE queue = ?

-- name: bind
INSERT OR IGNORE INTO bindings (exchange, routing_key, pattern, queue) VALUES (?, ?, ?, ?)

-- name: unbind
DELETE FROM bindings WHERE exchange = ? AND routing_key = ? AND queue = ?

-- name: table
SELECT routing_key, pattern, queue FROM bindings WHERE exchange = ?

-- name: put
INSERT INTO mailbox_messages (mailbox, at, raw) VALUES (?, ?, ?)

-- name: drop_old
DELETE FROM mailbox_messages WHERE mailbox = ? AND at < ?

-- name: take
DELETE FROM mailbox_messages
WHERE id = (SELECT id FROM mailbox_messages WHERE mailbox = ? ORDER BY at, id LIMIT 1) RETURNING raw

-- name: any
SELECT 1 FROM mailbox_messages WHERE mailbox = ? LIMIT 1

-- name: count
SELECT count(*) FROM mailbox_messages WHERE mailbox = ?

-- name: empty
DELETE FROM mailbox_messages WHERE mailbox = ?
