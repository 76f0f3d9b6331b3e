-- Who was told to make a cluster's swarm: noted before it is told, so that the next manager knows it,
-- too. NULL where nobody was.

ALTER TABLE cluster ADD COLUMN founder TEXT;
