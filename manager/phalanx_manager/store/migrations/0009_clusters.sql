-- Clusters have rows of their own. A removed one keeps its row: its name is not used again by
-- mistake. Events know the cluster in which they happened.

CREATE TABLE cluster (
    name TEXT PRIMARY KEY,
    created_at INTEGER, -- NULL where it was there before this table
    created_by TEXT NOT NULL DEFAULT '',
    removal_at INTEGER, -- NULL while it is in use
    removal_by TEXT NOT NULL DEFAULT '',
    removal_force INTEGER NOT NULL DEFAULT 0,
    removed_at INTEGER,
    leaves TEXT NOT NULL DEFAULT '[]'
) STRICT;

INSERT INTO cluster (name)
SELECT 'default' UNION SELECT cluster FROM agent UNION SELECT cluster FROM session;

ALTER TABLE event ADD COLUMN cluster TEXT;

UPDATE event SET cluster = (SELECT cluster FROM session WHERE session.id = event.session)
WHERE session IS NOT NULL;

CREATE INDEX event_of_cluster ON event (cluster, id);
