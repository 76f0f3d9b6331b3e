-- The one durable truth of what shall be. Times are Unix microseconds; lists are JSON. "user" is
-- quoted wherever it is a column: unquoted it means something else in PostgreSQL.

CREATE TABLE meta (
    key TEXT PRIMARY KEY,
    value TEXT NOT NULL
) STRICT;

CREATE TABLE agent (
    name TEXT PRIMARY KEY,
    cluster TEXT NOT NULL,
    public_key TEXT NOT NULL UNIQUE,
    joined_at INTEGER NOT NULL,
    observed BLOB,
    seen_at INTEGER,
    lost INTEGER NOT NULL DEFAULT 0
) STRICT;

CREATE TABLE token (
    id TEXT PRIMARY KEY,
    kind TEXT NOT NULL CHECK (kind IN ('bearer', 'agent')),
    name TEXT NOT NULL,
    scope TEXT NOT NULL,
    cluster TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    expires_at INTEGER,
    secret_hash TEXT UNIQUE,
    public_key TEXT UNIQUE,
    used_by TEXT,
    used_key TEXT,
    revoked INTEGER NOT NULL DEFAULT 0
) STRICT;

CREATE TABLE session (
    id TEXT PRIMARY KEY,
    name TEXT NOT NULL,
    "user" TEXT NOT NULL,
    cluster TEXT NOT NULL,
    spec TEXT NOT NULL,
    state TEXT NOT NULL,
    attempt INTEGER NOT NULL,
    created_at INTEGER NOT NULL,
    started_at INTEGER,
    ended_at INTEGER,
    stop_cause TEXT,
    stop_text TEXT,
    stop_at INTEGER,
    stop_rank INTEGER,
    stop_grace_s REAL,
    reason TEXT NOT NULL DEFAULT '',
    exit_code INTEGER,
    failed_rank INTEGER,
    warnings TEXT NOT NULL DEFAULT '[]',
    done INTEGER NOT NULL DEFAULT 0 -- ended, and nothing of it is left on any host
) STRICT;

CREATE UNIQUE INDEX one_live_session_of_a_name ON session ("user", name)
WHERE state NOT IN ('succeeded', 'failed', 'cancelled', 'timeout');
CREATE INDEX session_by_time ON session (created_at);
CREATE INDEX session_by_name ON session (name);
CREATE INDEX session_undone ON session (id) WHERE done = 0;

CREATE TABLE idempotency (
    "user" TEXT NOT NULL,
    key TEXT NOT NULL,
    digest TEXT NOT NULL,
    session TEXT NOT NULL REFERENCES session (id),
    PRIMARY KEY ("user", key)
) STRICT;

CREATE TABLE network (
    name TEXT PRIMARY KEY,
    session TEXT NOT NULL REFERENCES session (id),
    attempt INTEGER NOT NULL,
    driver TEXT NOT NULL,
    subnet TEXT NOT NULL,
    owner TEXT NOT NULL REFERENCES agent (name),
    engine_id TEXT NOT NULL DEFAULT '',
    problem TEXT NOT NULL DEFAULT '',
    failed INTEGER NOT NULL DEFAULT 0,
    released INTEGER NOT NULL DEFAULT 0,
    UNIQUE (session, attempt)
) STRICT;

CREATE UNIQUE INDEX one_live_network_of_a_subnet ON network (subnet) WHERE released = 0;

-- The life of a kernel, as in phalanx_wire.lifecycle; a test holds the two equal.
CREATE TABLE kernel_step (
    from_state INTEGER NOT NULL,
    to_state INTEGER NOT NULL,
    owner TEXT NOT NULL,
    PRIMARY KEY (from_state, to_state),
    CHECK (from_state < to_state)
) STRICT;

CREATE TABLE kernel (
    id TEXT PRIMARY KEY,
    session TEXT NOT NULL REFERENCES session (id),
    attempt INTEGER NOT NULL,
    rank INTEGER NOT NULL,
    role TEXT NOT NULL,
    replica INTEGER NOT NULL,
    host_name TEXT NOT NULL,
    cpu_milli INTEGER NOT NULL,
    mem_bytes INTEGER NOT NULL,
    gpu INTEGER NOT NULL,
    pids INTEGER NOT NULL,
    gpu_model TEXT NOT NULL,
    shm_bytes INTEGER NOT NULL,
    state INTEGER NOT NULL DEFAULT 0,
    state_at INTEGER NOT NULL,
    agent TEXT REFERENCES agent (name),
    address TEXT NOT NULL DEFAULT '',
    gpus TEXT NOT NULL DEFAULT '[]',
    ended_as INTEGER,
    exit_code INTEGER,
    cause TEXT NOT NULL DEFAULT '',
    message TEXT NOT NULL DEFAULT '',
    detail TEXT NOT NULL DEFAULT '',
    host_key TEXT NOT NULL DEFAULT '',
    user_key TEXT NOT NULL DEFAULT '',
    container_id TEXT NOT NULL DEFAULT '',
    warnings TEXT NOT NULL DEFAULT '[]',
    UNIQUE (session, attempt, rank)
) STRICT;

-- Written by the database itself (a trigger, in its own language): a step that the table does not
-- have is refused here, whoever tries it; the primary key adds that a state is left at most once.
CREATE TABLE kernel_history (
    kernel TEXT NOT NULL REFERENCES kernel (id),
    from_state INTEGER NOT NULL,
    to_state INTEGER NOT NULL,
    at INTEGER NOT NULL,
    PRIMARY KEY (kernel, from_state),
    FOREIGN KEY (from_state, to_state) REFERENCES kernel_step (from_state, to_state)
) STRICT;

CREATE TABLE gpu_hold (
    agent TEXT NOT NULL REFERENCES agent (name),
    gpu TEXT NOT NULL,
    kernel TEXT NOT NULL REFERENCES kernel (id),
    released INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (kernel, gpu)
) STRICT;

CREATE UNIQUE INDEX one_holder_of_a_gpu ON gpu_hold (agent, gpu) WHERE released = 0;

CREATE TABLE event (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    at INTEGER NOT NULL,
    session TEXT,
    rank INTEGER,
    kind TEXT NOT NULL,
    text TEXT NOT NULL
) STRICT;

CREATE INDEX event_of_session ON event (session, id);

INSERT INTO kernel_step (from_state, to_state, owner) VALUES
    (0, 100, 'scheduler'),
    (0, 710, 'scheduler'),
    (100, 200, 'agent'),
    (100, 710, 'agent'),
    (100, 720, 'agent'),
    (100, 730, 'liveness'),
    (200, 300, 'agent'),
    (200, 710, 'agent'),
    (200, 720, 'agent'),
    (200, 730, 'liveness'),
    (300, 400, 'agent'),
    (300, 710, 'agent'),
    (300, 720, 'agent'),
    (300, 730, 'liveness'),
    (400, 430, 'agent'),
    (400, 600, 'agent'),
    (400, 700, 'agent'),
    (400, 730, 'liveness'),
    (430, 460, 'agent'),
    (430, 600, 'agent'),
    (430, 700, 'agent'),
    (430, 730, 'liveness'),
    (460, 500, 'agent'),
    (460, 600, 'agent'),
    (460, 700, 'agent'),
    (460, 730, 'liveness'),
    (500, 600, 'agent'),
    (500, 700, 'agent'),
    (500, 730, 'liveness'),
    (600, 700, 'agent'),
    (600, 710, 'agent'),
    (600, 730, 'liveness'),
    (700, 800, 'agent'),
    (710, 800, 'agent'),
    (720, 800, 'agent'),
    (730, 800, 'agent');
