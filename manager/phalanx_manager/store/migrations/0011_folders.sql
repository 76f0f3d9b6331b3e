-- Which folders of its host a kernel may write, as its agent tells: those of hosts that do not share
-- them differ.

ALTER TABLE kernel ADD COLUMN folders TEXT NOT NULL DEFAULT '{}';
