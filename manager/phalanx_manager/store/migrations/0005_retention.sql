-- What is forgotten is found without reading all that is kept.

CREATE INDEX session_by_end ON session (ended_at) WHERE done = 1;
CREATE INDEX event_by_time ON event (at);
CREATE INDEX idempotency_of_session ON idempotency (session);
