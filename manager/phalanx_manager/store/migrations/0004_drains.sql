-- A host may be taken out of service for a while, and given up for good.

ALTER TABLE agent ADD COLUMN drain_reason TEXT; -- NULL while it is in service
ALTER TABLE agent ADD COLUMN drain_at INTEGER;
ALTER TABLE agent ADD COLUMN drain_deadline INTEGER;
ALTER TABLE agent ADD COLUMN drain_signal INTEGER;
ALTER TABLE agent ADD COLUMN drain_signalled INTEGER NOT NULL DEFAULT 0;
ALTER TABLE agent ADD COLUMN forgotten INTEGER NOT NULL DEFAULT 0;
