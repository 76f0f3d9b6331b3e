#!/bin/sh
# Makes a bare Debian machine able to run Phalanx from this checkout: Debian packages, a Python
# environment in .venv, the runner bundle. Every step looks first and does only what is missing,
# so a second run takes about a second. Usage: deploy/setup.sh [step...], by default all steps.
set -eu
cd "$(dirname "$0")/.."
LOG=.cache/setup.log
PYTHON=${PYTHON:-python3}
mkdir -p .cache

say() { printf '%s\n' "$*"; }
fail() { say "setup: $*" >&2; exit 1; }

# Run a command with its output in the log; show that it lives, and how long it took.
step() {
    title=$1; shift
    began=$(date +%s)
    printf '==> %s ' "$title"
    printf '\n### %s\n' "$title" >>"$LOG"
    "$@" >>"$LOG" 2>&1 </dev/null &
    pid=$!
    while kill -0 "$pid" 2>/dev/null; do sleep 1; printf '.'; done
    if wait "$pid"; then
        printf ' %s s\n' "$(($(date +%s) - began))"
    else
        printf ' failed\n'
        tail -n 30 "$LOG" >&2
        fail "'$title' failed; the whole output is in $LOG"
    fi
}

missing_packages() {
    sed 's/#.*//' deploy/debian-packages.txt | while read -r package; do
        [ -n "$package" ] || continue
        dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q 'ok installed' || printf '%s ' "$package"
    done
}

# docker.io would start an engine in this machine's own network and rewrite its firewall; the lab
# starts its engines in namespaces instead. postgresql would make a database server that starts with
# the machine; the tests start one of their own. What is already here is left alone.
install_packages() {
    policy=/usr/sbin/policy-rc.d
    no_cluster=/etc/postgresql-common/createcluster.d/phalanx.conf
    if [ ! -e "$policy" ]; then
        printf '#!/bin/sh\nexit 101\n' >"$policy"
        chmod 755 "$policy"
    else
        policy=
    fi
    mkdir -p "$(dirname "$no_cluster")"
    printf 'create_main_cluster = false\n' >"$no_cluster"
    # shellcheck disable=SC2064 # both are known now
    trap "rm -f $policy $no_cluster" EXIT
    apt-get update
    # shellcheck disable=SC2086 # a list of words is what we want
    DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends "$@"
}

packages() {
    missing=$(missing_packages)
    if [ -z "$missing" ]; then say '==> Debian packages: all here'; return; fi
    [ "$(id -u)" = 0 ] || fail "these Debian packages are missing and only root can install them: $missing"
    command -v apt-get >/dev/null || fail "this is no Debian machine; install by hand: $missing"
    # shellcheck disable=SC2086
    step "Debian packages: $missing" install_packages $missing
}

python_environment() {
    wanted=$(cat pyproject.toml deploy/setup.sh | sha256sum | cut -c1-16)
    if [ "$(cat .venv/.phalanx-setup 2>/dev/null)" = "$wanted" ]; then
        say '==> Python environment: up to date'
        return
    fi
    "$PYTHON" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null ||
        fail "Python 3.11 or newer is needed; set PYTHON to one (found: $("$PYTHON" -V 2>&1 || true))"
    [ -x .venv/bin/python ] || step 'Python environment in .venv' "$PYTHON" -m venv .venv
    step 'Python packages: pip' .venv/bin/python -m pip install --upgrade 'pip>=25.1'
    step 'Python packages: Phalanx and its tools' .venv/bin/python -m pip install \
        -e '.[client,manager,agent,postgres]' --group dev
    printf '%s\n' "$wanted" >.venv/.phalanx-setup
}

bundle() {
    # It prints its own progress, and nothing is done when it is up to date.
    .venv/bin/python -m phalanx_runner.build
}

[ $# -gt 0 ] || set -- packages python_environment bundle
for part; do "$part"; done
