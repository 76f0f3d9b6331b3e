-- A session may be tried again: its row is the current attempt's, and those before are here.

ALTER TABLE session ADD COLUMN stop_then TEXT NOT NULL DEFAULT '';
ALTER TABLE session ADD COLUMN charged INTEGER NOT NULL DEFAULT 0;
ALTER TABLE session ADD COLUMN because TEXT NOT NULL DEFAULT '';
ALTER TABLE session ADD COLUMN not_before INTEGER;
ALTER TABLE session ADD COLUMN warned_at INTEGER;

CREATE TABLE attempt (
    session TEXT NOT NULL REFERENCES session (id),
    attempt INTEGER NOT NULL,
    state TEXT NOT NULL,
    started_at INTEGER,
    ended_at INTEGER NOT NULL,
    reason TEXT NOT NULL,
    exit_code INTEGER,
    failed_rank INTEGER,
    done INTEGER NOT NULL DEFAULT 0, -- nothing of it is left on any host
    PRIMARY KEY (session, attempt)
) STRICT;
