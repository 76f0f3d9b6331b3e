"""The table: every path of the API, who may ask, with what, and what comes back."""

from __future__ import annotations

from typing import Final

from phalanx_manager.http import (
    access,
    archives,
    commands,
    events,
    forward,
    health,
    logs,
    nodes,
    queue,
    sessions,
    steps,
    why,
)
from phalanx_manager.http.ask import Route
from phalanx_manager.http.cluster_routes import CLUSTERS
from phalanx_manager.http.params import (
    choice,
    flag,
    moment,
    path,
    ranks,
    seconds,
    ssh_key,
    whole,
    words,
)
from phalanx_wire.api import (
    ENDED_STATES,
    CreateAgentToken,
    CreateToken,
    DrainRequest,
    EnvView,
    ExtendRequest,
    NodeList,
    NodeView,
    SessionList,
    SessionView,
    SignalRequest,
    SshView,
    StopRequest,
    TokenCreated,
    TokenList,
    UploadCreated,
    WhyView,
)
from phalanx_wire.spec import SessionSpec

STATES: Final = (
    "pending",
    "scheduled",
    "preparing",
    "starting",
    "running",
    "stopping",
    *ENDED_STATES,
)
_MAX_RANK: Final = 999_999
_IDEMPOTENT: Final = {"Idempotency-Key": "the same key and body give the same session"}
_RESUME: Final = {"Last-Event-ID": "the id of the last event that was received"}
_SESSION: Final = "/v1/sessions/{ref}"
_RANK: Final = whole("rank", "which container; 0 when left out", 0, _MAX_RANK)
_RANKS: Final = ranks("rank", "which containers, e.g. `0,2-3`; all when left out")

_SESSIONS: Final = (
    Route(
        "POST",
        "/v1/sessions",
        sessions.submit,
        "Ask for a session. 200 with the session when the same request came before.",
        SessionView,
        scope="user",
        params=(flag("dry_run", "only say where it would go now (a DryRun)"),),
        body=SessionSpec,
        status=201,
        headers=_IDEMPOTENT,
    ),
    Route(
        "GET",
        "/v1/sessions",
        sessions.listing,
        "List sessions, newest first: those that have not ended.",
        SessionList,
        params=(
            choice("state", "only these states", STATES, many=True),
            flag("all", "also those that have ended"),
            whole("limit", "at most so many; 100 when left out", 1, 10_000),
        ),
    ),
    Route("GET", _SESSION, sessions.show, "Show a session by id, name or prefix.", SessionView),
    Route(
        "POST",
        f"{_SESSION}/stop",
        sessions.stop,
        "Stop a session; a second time changes nothing.",
        SessionView,
        scope="user",
        body=StopRequest,
        optional_body=True,
    ),
    Route(
        "POST",
        f"{_SESSION}/requeue",
        queue.requeue,
        "Stop what runs of a session and put it back into the queue, as its next attempt.",
        SessionView,
        scope="user",
    ),
    Route(
        "POST",
        f"{_SESSION}/hold",
        queue.hold,
        "Keep a waiting session in the queue.",
        SessionView,
        scope="user",
    ),
    Route(
        "POST",
        f"{_SESSION}/release",
        queue.release,
        "Let a held session go.",
        SessionView,
        scope="user",
    ),
    Route(
        "POST",
        f"{_SESSION}/extend",
        queue.extend,
        "Add to a session's time limit.",
        SessionView,
        scope="user",
        body=ExtendRequest,
    ),
    Route(
        "POST",
        f"{_SESSION}/signal",
        sessions.send_signal,
        "Send a signal to the commands that run.",
        None,
        scope="user",
        body=SignalRequest,
        status=204,
    ),
    Route(
        "GET",
        f"{_SESSION}/env",
        sessions.env,
        "Show the environment of every rank, with who reads each variable.",
        EnvView,
        params=(_RANKS,),
    ),
    Route(
        "GET",
        f"{_SESSION}/why",
        why.show,
        "Tell why a session waits, is stuck or has failed, the likeliest reason first. The "
        "containers that run are looked at; the answer comes within a second all the same.",
        WhyView,
    ),
    Route(
        "GET",
        f"{_SESSION}/wait",
        sessions.wait,
        "Answer when the session runs, has ended, or is gone from all hosts; or after the time.",
        SessionView,
        params=(
            choice(
                "until", "what to wait for; ended when left out", ("running", "ended", "removed")
            ),
            seconds("timeout_s", "how long; 30 when left out", sessions.MAX_WAIT_S),
        ),
    ),
)

_STREAMS: Final = (
    Route(
        "GET",
        f"{_SESSION}/events",
        events.of_session,
        "Tell a session's timeline; as a list of events, or as a stream on request.",
        "event-stream",
        params=(
            flag("follow", "with a stream: go on until the session has ended; 1 when left out"),
            whole("after", "only later events than this id", 0, 999_999_999),
            whole("limit", "of a list: at most so many", 1, 10_000),
        ),
        headers=_RESUME,
    ),
    Route(
        "GET",
        "/v1/events",
        events.of_all,
        "Tell what happens to all sessions of the caller.",
        "event-stream",
        params=(
            flag("follow", "with a stream: go on for ever; 1 when left out"),
            whole("after", "only later events than this id", 0, 999_999_999),
            whole("limit", "of a list: at most so many", 1, 10_000),
        ),
        headers=_RESUME,
    ),
    Route(
        "GET",
        f"{_SESSION}/logs",
        logs.stream,
        "Send output: merged by time, or with `follow` as it comes. Ends with `event: end`, "
        "which says what is missing. The id of an event is where a new stream goes on.",
        "log-stream",
        params=(
            flag("follow", "go on until the session has ended; 0 when left out"),
            _RANKS,
            moment("since", "only later lines: RFC 3339, or how long ago, e.g. `10m`"),
            whole("attempt", "of an attempt before this one; without `follow`", 1, 1_000),
            whole(
                "tail",
                "of the last lines at most so many, of 16 MiB; followed: of each rank",
                0,
                1_000_000,
            ),
        ),
        headers=_RESUME,
    ),
    Route(
        "GET",
        f"{_SESSION}/exec",
        commands.run,
        "Run a command in a container, over a WebSocket. Binary frames begin with the channel "
        '(0 in, 1 out, 2 err); text frames are `{"resize": [rows, columns]}`, `{"eof": true}`, '
        'and last `{"exit_code": n}` or `{"problem": {...}}`.',
        "socket",
        scope="user",
        params=(
            _RANK,
            words("command", "argument list, a JSON list of texts"),
            flag("shell", "the login shell instead of a command"),
            flag("tty", "on a terminal: one merged stream"),
            flag("stdin", "input will come"),
            whole("rows", "of the terminal", 1, 65_535),
            whole("columns", "of the terminal", 1, 65_535),
        ),
    ),
    Route(
        "GET",
        f"{_SESSION}/forward",
        forward.connect,
        "Connect to a TCP port inside a container, over a WebSocket. Binary frames are data; text "
        'frames are `{"eof": true}`, from either side, and last `{"problem": {...}}` when it '
        "could not be connected or broke.",
        "socket",
        scope="user",
        params=(
            _RANK,
            whole("port", "of the container; its ssh server's when left out", 1, 65_535),
            ssh_key("key", "a public key that the ssh server shall let in first, OpenSSH's form"),
        ),
    ),
    Route(
        "GET",
        f"{_SESSION}/steps",
        steps.run,
        "Run a step of tasks in the containers. The first frame is text, a StepSpec; then binary "
        "ones: a byte (0 input, 1 output, 2 errors) and data. Other text frames of the client: "
        '`{"eof":true}`, `{"resize":[24,80]}`, `{"signal":15}`; the last one from here: '
        '`{"exit_code":0}` or `{"problem":{}}`. When the client goes, all tasks are ended.',
        "socket",
        scope="user",
    ),
    Route(
        "GET",
        f"{_SESSION}/ssh",
        forward.known,
        "Tell the host keys of the ssh servers of a session, for a client to verify them.",
        SshView,
        scope="user",
    ),
    Route(
        "GET",
        f"{_SESSION}/archive",
        archives.read,
        "Read a file or folder of a container.",
        "tar",
        scope="user",
        params=(_RANK, path("path", "absolute, in the container")),
    ),
    Route(
        "PUT",
        f"{_SESSION}/archive",
        archives.write,
        "Unpack an archive into an existing folder of a container.",
        None,
        scope="user",
        params=(_RANK, path("path", "absolute, in the container")),
        body="tar",
        status=204,
    ),
    Route(
        "PUT",
        "/v1/uploads",
        archives.upload,
        "Keep an archive that `SessionSpec.upload` may name: a tar, or one sealed for hosts' keys "
        "(`phalanx_wire.sealed`).",
        UploadCreated,
        scope="user",
        body="tar",
        status=201,
    ),
)

_HOUSE: Final = (
    Route("GET", "/v1/nodes", nodes.listing, "List agents and their hosts.", NodeList),
    Route(
        "POST",
        "/v1/nodes/{name}/drain",
        nodes.drain,
        "Give a host no new work, and from a deadline on none at all.",
        NodeView,
        scope="admin",
        body=DrainRequest,
        optional_body=True,
    ),
    Route(
        "POST",
        "/v1/nodes/{name}/undrain",
        nodes.undrain,
        "Give a host work again.",
        NodeView,
        scope="admin",
    ),
    Route(
        "POST",
        "/v1/nodes/{name}/forget",
        nodes.forget,
        "Give up a host that is lost: what it holds is free, and it may only join anew.",
        None,
        scope="admin",
        status=204,
    ),
    Route(
        "POST",
        "/v1/tokens",
        access.create,
        "Make a bearer token.",
        TokenCreated,
        scope="admin",
        body=CreateToken,
        status=201,
    ),
    Route("GET", "/v1/tokens", access.listing, "List tokens.", TokenList, scope="admin"),
    Route(
        "DELETE",
        "/v1/tokens/{token}",
        access.revoke,
        "Make a token worthless.",
        None,
        scope="admin",
        status=204,
    ),
    Route(
        "POST",
        "/v1/agent-tokens",
        access.create_for_agent,
        "Make a token that lets one agent join.",
        TokenCreated,
        scope="admin",
        body=CreateAgentToken,
        status=201,
    ),
    Route("GET", "/v1/openapi.json", health.document, "This document.", "any", scope=None),
    Route("GET", "/healthz", health.alive, "The process turns.", "text", scope=None),
    Route("GET", "/readyz", health.ready, "The manager can work.", "text", scope=None),
    Route("GET", "/metrics", health.metrics, "Numbers for Prometheus.", "text", scope=None),
)

ROUTES: Final = (*_SESSIONS, *_STREAMS, *_HOUSE, *CLUSTERS)
