-- What is remembered of messages that senders gave an id lies beside the event: a message is one row and one entry of
-- one index, and both are added at an end. (Rows are copied to a new table: they may not grow where they are.)

-- The first event of which that is still remembered; if there is none, the one after the latest.
ALTER TABLE sessions ADD COLUMN remembered_from INTEGER NOT NULL DEFAULT 0;
UPDATE sessions SET remembered_from = coalesce(
    (SELECT min(r.seq) FROM recent_msgs AS r WHERE r.session_id = sessions.session_id), last_seq + 1);

CREATE TABLE events_anew (
    id            INTEGER PRIMARY KEY,
    session_id    BLOB    NOT NULL,
    seq           INTEGER NOT NULL,
    version       INTEGER NOT NULL,
    -- Of a message with an id of its sender's own.
    sender        BLOB,
    client_msg_id TEXT,
    time          INTEGER,
    json          TEXT    NOT NULL
) STRICT;
INSERT INTO events_anew (id, session_id, seq, version, sender, client_msg_id, time, json)
SELECT e.id, e.session_id, e.seq, e.version, r.sender, r.client_msg_id, r.time, e.json
FROM events AS e LEFT JOIN (SELECT * FROM recent_msgs ORDER BY session_id, seq) AS r USING (session_id, seq)
ORDER BY e.id;
DROP TABLE events;
DROP TABLE recent_msgs;
ALTER TABLE events_anew RENAME TO events;

-- With what a session's new owner reads of it, so that it finds that without a look at the events themselves.
CREATE INDEX events_by_seq ON events (session_id, seq, sender, client_msg_id, time);
