/* PID 1 of a container: ssh server, mesh check, the user's command, and its end. */
#include "phalanx.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/wait.h>
#include <unistd.h>

#define REFUSED_LINGER_MS 5000
#define LAST_REAP_MS 2000 /* after KILL; what is left then hangs in the kernel */

enum phase { WAITING, RUNNING, LINGERING, CLOSING };

static struct conf conf;
static struct {
    char **argv;
    enum phase phase;
    bool started, stopping;
    pid_t command;
    int exit_code;
    int signals, listener;
    int64_t deadline; /* RUNNING: of KILL; LINGERING: its end; CLOSING: of KILL; -1: none */
    bool killed;
} self = {.listener = -1, .deadline = -1};

static void close_down(int64_t kill_at) {
    if (self.phase == CLOSING)
        return;
    self.phase = CLOSING;
    self.deadline = kill_at;
    mesh_abandon();
    kill(-1, SIGTERM); /* as PID 1: everything in the container but us */
}

static void close_down_with_grace(void) { close_down(clock_ms() + conf.grace_s * 1000); }

static void start(void) {
    if (self.started)
        return;
    self.started = true;
    if (conf.master_port && !port_is_free(conf.master_port))
        event(KEEP, "warning", "\"what\":\"master-port\",\"port\":%d", conf.master_port);
    if (!conf.run) {
        event(KEEP, "started", "\"pid\":0");
        return;
    }
    self.command = spawn_command(self.argv);
    if (!self.command) {
        event(KEEP, "error", "\"what\":\"fork\",\"errno\":%d", errno);
        self.exit_code = EXIT_NOT_EXECUTABLE;
        close_down_with_grace();
        return;
    }
    self.phase = RUNNING;
    event(KEEP, "started", "\"pid\":%d", self.command);
}

static void stop(const struct command *order) {
    int grace_ms = order->grace_ms < 0 ? conf.grace_s * 1000 : order->grace_ms;
    self.stopping = true;
    if (self.phase == CLOSING)
        return;
    if (self.phase == RUNNING) {
        kill(-self.command, order->signal ? order->signal : SIGTERM);
        self.deadline = clock_ms() + grace_ms;
    } else {
        close_down(clock_ms() + grace_ms);
    }
}

static void obey(const struct command *order) {
    switch (order->op) {
    case OP_MESH:
        mesh_begin(&conf);
        break;
    case OP_START:
        if (self.phase == WAITING)
            start();
        break;
    case OP_STOP:
        stop(order);
        break;
    case OP_SIGNAL:
        event(KEEP, "signalled", "\"signal\":%d,\"count\":%d", order->signal,
              self.phase == RUNNING && !kill(-self.command, order->signal));
        break;
    case OP_EXIT:
        if (self.phase == LINGERING)
            close_down_with_grace();
        break;
    case OP_PING:
        event(ONCE, "pong", "");
        break;
    case OP_NONE:
        break;
    }
}

static void command_ended(int status) {
    int failure = spawn_command_failure();
    int signal = WIFSIGNALED(status) ? WTERMSIG(status) : 0;
    int64_t kill_at = self.deadline; /* what is left of the grace of a stop */
    self.exit_code = signal ? 128 + signal : WEXITSTATUS(status);
    if (failure)
        event(KEEP, "error", "\"what\":\"exec\",\"errno\":%d,\"text\":\"%s\"", failure,
              strerror(failure));
    event(KEEP, "exited", "\"code\":%d,\"signal\":%d", self.exit_code, signal);
    self.command = 0;
    self.phase = LINGERING;
    self.deadline = clock_ms() + conf.linger_s * 1000;
    if (self.stopping && kill_at >= 0)
        close_down(kill_at);
    else if (self.stopping || !conf.linger_s)
        close_down_with_grace();
}

/* False when there is no child left. */
static bool reap(void) {
    int status;
    pid_t pid;
    while ((pid = waitpid(-1, &status, WNOHANG)) > 0) {
        if (pid == self.command)
            command_ended(status);
        else
            spawn_reaped(pid);
    }
    return pid == 0;
}

/* Signals that mean "stop": the usual ones, and the real-time ones that images name as STOPSIGNAL. */
static void forward(int signal) {
    bool stops = signal == SIGTERM || signal == SIGINT || signal == SIGQUIT || signal >= SIGRTMIN;
    if (self.phase == RUNNING) {
        self.stopping |= stops;
        kill(-self.command, signal);
    } else if (stops && self.phase != CLOSING) {
        if (self.phase == WAITING)
            self.exit_code = 128 + signal;
        close_down_with_grace();
    }
}

static void take_signals(void) {
    struct signalfd_siginfo info;
    while (read(self.signals, &info, sizeof info) == sizeof info)
        if (info.ssi_signo != SIGCHLD)
            forward((int)info.ssi_signo);
    reap();
}

static void take_deadline(int64_t now) {
    if (self.deadline < 0 || now < self.deadline)
        return;
    if (self.phase == LINGERING) {
        close_down_with_grace();
    } else if (!self.killed) {
        self.killed = true;
        self.deadline = now + LAST_REAP_MS;
        kill(-1, SIGKILL);
    } else {
        self.deadline = -1;
    }
}

static bool is_over(void) {
    return self.phase == CLOSING && (!reap() || (self.killed && self.deadline < 0));
}

static int sooner(int timeout, int64_t at, int64_t now) {
    int left = at < 0 ? -1 : at <= now ? 0 : (int)(at - now);
    return left >= 0 && (timeout < 0 || left < timeout) ? left : timeout;
}

static void turn(void) {
    enum { SIGNALS, LISTENER, AGENT, LOG, MESH, FIXED };
    struct pollfd polled[FIXED + DOOR_LIMIT] = {
        [SIGNALS] = {self.signals, POLLIN, 0},
        [LISTENER] = {door_open() ? self.listener : -1, POLLIN, 0},
        [AGENT] = {agent_fd(), POLLIN, 0},
        [LOG] = {spawn_log_fd(), POLLIN, 0},
        [MESH] = {mesh_fd(), POLLIN, 0},
    };
    int waiting = door_count();
    for (int i = 0; i < waiting; i++)
        polled[FIXED + i] = (struct pollfd){door_fd(i), POLLIN, 0};
    int64_t now = clock_ms();
    int timeout = sooner(-1, self.deadline, now);
    timeout = sooner(timeout, door_deadline(), now);
    timeout = sooner(timeout, mesh_deadline(), now);
    if (agent_fd() < 0)
        timeout = sooner(timeout, agent_retry_at(), now);
    poll(polled, (nfds_t)(FIXED + waiting), timeout);
    now = clock_ms();
    if (polled[SIGNALS].revents)
        take_signals();
    if (polled[LOG].revents)
        spawn_log_read();
    mesh_progress(now);
    for (int i = waiting - 1; i >= 0; i--) /* downwards: a leaver's place is taken by the last */
        door_look(i, now, polled[FIXED + i].revents);
    if (polled[LISTENER].revents)
        door_accept(self.listener);
    if (polled[AGENT].revents && agent_fd() >= 0)
        agent_read(obey);
    agent_connect();
    take_deadline(now);
}

static void refuse(const char *what, const char *detail, int number) {
    event(KEEP, "error", "\"what\":\"%s\",\"detail\":\"%s\",\"number\":%d", what, detail, number);
    dprintf(2, "phalanx-init: %s: %s %d\n", what, detail, number);
    self.exit_code = EXIT_REFUSED;
    self.phase = LINGERING; /* the agent may not know our pid yet, and so not have listened */
    self.deadline = clock_ms() + REFUSED_LINGER_MS;
}

static void boot(const char *wrong) {
    sigset_t all;
    sigfillset(&all);
    sigprocmask(SIG_SETMASK, &all, NULL);
    prctl(PR_SET_DUMPABLE, 0); /* the user's processes may not trace us */
    self.signals = signalfd(-1, &all, SFD_CLOEXEC | SFD_NONBLOCK);
    events_open(conf.kernel);
    agent_connect();
    event(KEEP, "boot", "\"pid\":%d,\"uid\":%d,\"gid\":%d", getpid(), getuid(), getgid());
    if (wrong)
        return refuse("conf", wrong, 0);
    if (conf.run && !self.argv[0])
        return refuse("conf", "command", 0);
    if (*conf.address && *conf.interface && !address_on_interface(conf.address, conf.interface))
        return refuse("interface", conf.interface, 0);
    self.listener = ssh_listen(conf.ssh_port);
    if (self.listener < 0)
        return refuse("ssh-port", strerror(errno), conf.ssh_port);
    spawn_prepare(&conf);
    event(KEEP, "ready", "\"port\":%d", conf.ssh_port);
}

int init_main(char **argv) {
    const char *wrong = conf_load(&conf);
    if (getpid() != 1 || (wrong && !strcmp(wrong, "missing"))) {
        /* It signals every process that it can see, which is right only in a container. */
        fprintf(stderr, "phalanx-init: not PID 1 of a container with " MATERIAL "/runner.conf\n");
        return EXIT_REFUSED;
    }
    self.argv = argv;
    boot(wrong);
    while (!is_over())
        turn();
    event(KEEP, "bye", "\"code\":%d", self.exit_code);
    return self.exit_code;
}
