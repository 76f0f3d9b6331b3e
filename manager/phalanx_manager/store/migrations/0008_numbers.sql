-- Sessions are counted as they arrive: a short name of each that is never given again.

ALTER TABLE session ADD COLUMN number INTEGER NOT NULL DEFAULT 0;

UPDATE session SET number = ranked.n
FROM (SELECT id, row_number() OVER (ORDER BY created_at, id) AS n FROM session) AS ranked
WHERE ranked.id = session.id;

CREATE UNIQUE INDEX session_by_number ON session (number);
