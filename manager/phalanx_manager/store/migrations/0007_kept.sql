-- Containers of an attempt that has failed may be kept for a look.

ALTER TABLE session ADD COLUMN kept_until INTEGER;
ALTER TABLE attempt ADD COLUMN kept_until INTEGER;
