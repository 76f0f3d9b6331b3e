-- Every statement of the manager, by name; `store/statements.py` reads them.

-- name: meta_get
SELECT value FROM meta WHERE key = :key;

-- name: meta_once
INSERT INTO meta (key, value) VALUES (:key, :value) ON CONFLICT (key) DO NOTHING;

-- name: meta_set
INSERT INTO meta (key, value) VALUES (:key, :value)
ON CONFLICT (key) DO UPDATE SET value = excluded.value;

-- name: meta_drop
DELETE FROM meta WHERE key = :key;

-- name: session_add
INSERT INTO session (id, number, name, "user", cluster, spec, state, attempt, created_at, warnings)
VALUES (:id, :number, :name, :user, :cluster, :spec, 'pending', 1, :created_at, :warnings);

-- name: session_set
UPDATE session SET
    state = :state, attempt = :attempt, started_at = :started_at, ended_at = :ended_at,
    stop_cause = :stop_cause, stop_text = :stop_text, stop_at = :stop_at, stop_rank = :stop_rank,
    stop_grace_s = :stop_grace_s, stop_then = :stop_then, reason = :reason,
    exit_code = :exit_code, failed_rank = :failed_rank, charged = :charged, because = :because,
    not_before = :not_before, warned_at = :warned_at, held = :held, extended_s = :extended_s,
    kept_until = :kept_until, done = :done
WHERE id = :id;

-- name: number_last
SELECT max(number) FROM (
    SELECT coalesce(max(number), 0) AS number FROM session
    UNION ALL SELECT CAST(value AS BIGINT) FROM meta WHERE key = 'last_number'
) AS given;

-- name: session_columns
SELECT id, name, "user", cluster, spec, state, attempt, created_at, started_at, ended_at,
    stop_cause, stop_text, stop_at, stop_rank, stop_grace_s, reason, exit_code, failed_rank,
    warnings, stop_then, charged, because, not_before, warned_at, held, extended_s,
    kept_until, number
FROM session;

-- name: attempt_add
INSERT INTO attempt (session, attempt, state, started_at, ended_at, reason, exit_code, failed_rank,
    kept_until, done)
VALUES (:session, :attempt, :state, :started_at, :ended_at, :reason, :exit_code, :failed_rank,
    :kept_until, :done);

-- name: attempt_let_go
UPDATE attempt SET kept_until = NULL WHERE session = :session AND attempt = :attempt;

-- name: attempt_done
UPDATE attempt SET done = 1 WHERE session = :session AND attempt = :attempt;

-- name: attempt_columns
SELECT attempt, state, started_at, ended_at, reason, exit_code, failed_rank, done, kept_until,
    session
FROM attempt;

-- name: idempotency_get
SELECT digest, session FROM idempotency WHERE "user" = :user AND key = :key;

-- name: idempotency_put
INSERT INTO idempotency ("user", key, digest, session) VALUES (:user, :key, :digest, :session);

-- name: kernel_add
INSERT INTO kernel (id, session, attempt, rank, role, replica, host_name, cpu_milli, mem_bytes,
    gpu, pids, gpu_model, shm_bytes, state_at)
VALUES (:id, :session, :attempt, :rank, :role, :replica, :host_name, :cpu_milli, :mem_bytes,
    :gpu, :pids, :gpu_model, :shm_bytes, :state_at);

-- name: kernel_columns
SELECT id, session, rank, role, replica, host_name, cpu_milli, mem_bytes, gpu, pids, shm_bytes,
    state, state_at, gpu_model, agent, address, gpus, ended_as, exit_code, cause, message, detail,
    host_key, user_key, container_id, warnings, interface, ssh_port, service_port,
    folders
FROM kernel;

-- name: kernel_seat
UPDATE kernel SET agent = :agent, address = :address, gpus = :gpus, interface = :interface,
    ssh_port = :ssh_port, service_port = :service_port
WHERE id = :id AND state = 0 AND agent IS NULL AND EXISTS (
    SELECT 1 FROM agent WHERE name = :agent AND drain_reason IS NULL AND forgotten = 0
);

-- name: kernel_step
UPDATE kernel SET state = :state, state_at = :at WHERE id = :id AND state = :seen;

-- name: kernel_set
UPDATE kernel SET
    ended_as = :ended_as, exit_code = :exit_code, cause = :cause, message = :message,
    detail = :detail, host_key = :host_key, user_key = :user_key, container_id = :container_id,
    warnings = :warnings, folders = :folders
WHERE id = :id AND state = :state;

-- name: gpu_hold
INSERT INTO gpu_hold (agent, gpu, kernel) VALUES (:agent, :gpu, :kernel);

-- name: gpu_release
UPDATE gpu_hold SET released = 1 WHERE kernel = :kernel;

-- name: port_hold
INSERT INTO port_hold (agent, port, kernel) VALUES (:agent, :port, :kernel);

-- name: port_release
UPDATE port_hold SET released = 1 WHERE kernel = :kernel;

-- name: network_add
INSERT INTO network (name, session, attempt, driver, subnet, owner, engine_id, released)
VALUES (:name, :session, :attempt, :driver, :subnet, :owner, :engine_id, :released);

-- name: network_set
UPDATE network SET engine_id = :engine_id, problem = :problem, failed = :failed,
    released = :released
WHERE name = :name;

-- name: network_columns
SELECT name, driver, subnet, owner, engine_id, problem, failed, released, session, attempt
FROM network;

-- name: agents
SELECT name, cluster, public_key, joined_at, observed, seen_at, lost, drain_reason, drain_at,
    drain_deadline, drain_signal, drain_signalled, forgotten
FROM agent ORDER BY name;

-- name: agent_add
INSERT INTO agent (name, cluster, public_key, joined_at)
VALUES (:name, :cluster, :public_key, :joined_at);

-- name: agent_add_again
UPDATE agent SET cluster = :cluster, public_key = :public_key, joined_at = :joined_at,
    observed = NULL, seen_at = NULL, lost = 0, drain_reason = NULL, forgotten = 0
WHERE name = :name;

-- name: agent_drain
UPDATE agent SET drain_reason = :reason, drain_at = :at, drain_deadline = :deadline,
    drain_signal = :signal, drain_signalled = :signalled
WHERE name = :name;

-- name: agent_forget
UPDATE agent SET forgotten = 1, public_key = 'forgotten ' || name WHERE name = :name;

-- name: agents_revoked
SELECT agent.name FROM agent
JOIN token ON token.used_by = agent.name AND token.used_key = agent.public_key
WHERE token.revoked = 1;

-- name: agent_saw
UPDATE agent SET observed = :observed, seen_at = :seen_at, lost = 0 WHERE name = :name;

-- name: agent_lost
UPDATE agent SET lost = 1 WHERE name = :name;

-- name: clusters
SELECT name, created_at, created_by, removal_at, removal_by, removal_force, removed_at, leaves,
    founder
FROM cluster ORDER BY name;

-- name: cluster_set
INSERT INTO cluster (name, created_at, created_by, removal_at, removal_by, removal_force,
    removed_at, leaves, founder)
VALUES (:name, :created_at, :created_by, :removal_at, :removal_by, :removal_force, :removed_at,
    :leaves, :founder)
ON CONFLICT (name) DO UPDATE SET
    created_at = excluded.created_at, created_by = excluded.created_by,
    removal_at = excluded.removal_at, removal_by = excluded.removal_by,
    removal_force = excluded.removal_force, removed_at = excluded.removed_at,
    leaves = excluded.leaves, founder = excluded.founder;

-- name: token_add
INSERT INTO token (id, kind, name, scope, cluster, created_at, expires_at, secret_hash, public_key)
VALUES (:id, :kind, :name, :scope, :cluster, :created_at, :expires_at, :secret_hash, :public_key);

-- name: token_columns
SELECT id, kind, name, scope, cluster, created_at, expires_at, secret_hash, public_key, used_by,
    revoked, used_key
FROM token;

-- name: token_revoke
UPDATE token SET revoked = 1 WHERE id = :id;

-- name: tokens_of_cluster_revoke
UPDATE token SET revoked = 1 WHERE kind = 'agent' AND cluster = :cluster AND used_by IS NULL;

-- name: token_use
UPDATE token SET used_by = :agent, used_key = :key WHERE id = :id AND used_by IS NULL;

-- name: event_add
INSERT INTO event (at, session, rank, kind, text, cluster)
VALUES (:at, :session, :rank, :kind, :text,
    coalesce(:cluster, (SELECT cluster FROM session WHERE id = :session)));

-- name: events_of_all
SELECT id, at, session, rank, kind, text FROM event WHERE id > :after ORDER BY id LIMIT :limit;

-- name: events_of_session
SELECT id, at, session, rank, kind, text FROM event
WHERE session = :session AND id > :after ORDER BY id LIMIT :limit;

-- name: events_of_cluster
SELECT id, at, session, rank, kind, text FROM event
WHERE cluster = :cluster AND id > :after ORDER BY id LIMIT :limit;

-- name: event_last
SELECT coalesce(max(id), 0) FROM event;

-- name: events_over
SELECT id FROM event WHERE at < :before ORDER BY at LIMIT :limit;

-- name: event_prune
DELETE FROM event WHERE id = :id;

-- name: sessions_over
SELECT id FROM session WHERE done = 1 AND ended_at < :before ORDER BY ended_at LIMIT :limit;

-- name: history_prune
DELETE FROM kernel_history WHERE kernel IN (SELECT id FROM kernel WHERE session = :session);

-- name: gpus_prune
DELETE FROM gpu_hold WHERE kernel IN (SELECT id FROM kernel WHERE session = :session);

-- name: ports_prune
DELETE FROM port_hold WHERE kernel IN (SELECT id FROM kernel WHERE session = :session);

-- name: kernels_prune
DELETE FROM kernel WHERE session = :session;

-- name: networks_prune
DELETE FROM network WHERE session = :session;

-- name: attempts_prune
DELETE FROM attempt WHERE session = :session;

-- name: idempotency_prune
DELETE FROM idempotency WHERE session = :session;

-- name: session_prune
DELETE FROM session WHERE id = :session;
