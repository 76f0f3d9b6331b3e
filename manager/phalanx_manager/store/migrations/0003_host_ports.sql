-- Kernels on their hosts' own network: ports of an agent, held like its devices.

ALTER TABLE kernel ADD COLUMN interface TEXT NOT NULL DEFAULT '';
ALTER TABLE kernel ADD COLUMN ssh_port INTEGER NOT NULL DEFAULT 0;
ALTER TABLE kernel ADD COLUMN service_port INTEGER NOT NULL DEFAULT 0;

CREATE TABLE port_hold (
    agent TEXT NOT NULL REFERENCES agent (name),
    port INTEGER NOT NULL,
    kernel TEXT NOT NULL REFERENCES kernel (id),
    released INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (kernel, port)
) STRICT;

CREATE UNIQUE INDEX one_holder_of_a_port ON port_hold (agent, port) WHERE released = 0;
