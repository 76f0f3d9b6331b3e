-- A session may be kept in the queue, and its time limit extended.

ALTER TABLE session ADD COLUMN held INTEGER NOT NULL DEFAULT 0;
ALTER TABLE session ADD COLUMN extended_s REAL NOT NULL DEFAULT 0;
