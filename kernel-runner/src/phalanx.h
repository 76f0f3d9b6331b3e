/* What the files of the runner share. One process, one thread, and after boot no allocation but for
 * the ring of events. */
#pragma once

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define BUNDLE "/opt/phalanx"
#define MATERIAL "/run/phalanx"
#define LINE_LIMIT 4096 /* bytes of one message, newline included, both ways */
#define PEER_LIMIT 1024
enum { EXIT_FENCED = 121, EXIT_REFUSED = 125, EXIT_NOT_EXECUTABLE, EXIT_NOT_FOUND };

/* conf.c: MATERIAL/runner.conf. Texts point into the buffer that was parsed. */
struct peer {
    const char *name;
    int port;
};
extern struct conf {
    const char *kernel, *address, *interface;
    int ssh_port, ssh_limit, master_port, mesh_timeout_s, linger_s, grace_s;
    int peer_count;
    struct peer peers[PEER_LIMIT]; /* port 0: ssh_port */
} conf;
/* Parses `size` bytes of `text` in place; text[size] must be writable. Returns NULL, or the name of
 * the first key (or the word "line") that is wrong. */
const char *conf_parse(char *text, size_t size);
/* Reads the file. Returns as conf_parse() does; "missing" without a file. */
const char *conf_load(void);

/* command.c: one line from the agent. */
struct command {
    enum { OP_NONE, OP_MESH, OP_START, OP_STOP, OP_SIGNAL, OP_EXIT, OP_PING } op;
    unsigned signal, grace_ms; /* 0 where the operation has none */
};
/* False when the line, without its end, is none that the agent writes. */
bool command_parse(const char *line, struct command *command);

/* main.c */
/* Milliseconds of a clock that is never set, and goes on while the machine is suspended. Moments
 * are told by it; 0 is never. */
int64_t clock_ms(void);
/* Comes back when the program could not be executed: `who` has said so, and errno tells it. Returns
 * the exit code that a shell would give. */
int become(const char *who, char **argv);

/* events.c: the journal, and the connection to the agent. */
enum keep { KEEP, ONCE };      /* ONCE: of interest only while it happens, never replayed */
extern int agent_fd;           /* -1: not connected */
extern int64_t agent_retry_at; /* while not connected */
/* Fields are JSON members without the enclosing braces, "" for none. */
__attribute__((format(printf, 3, 4))) void event(enum keep keep, const char *name,
                                                 const char *fields, ...);
void agent_connect(void);
void agent_read(void (*obey)(const struct command *));

/* net.c: the ssh port. */
bool address_on_interface(const char *address, const char *interface);
int listen_everywhere(int port); /* over IPv6 and IPv4, or only IPv4; -1 with errno */
void let_in(int listener);

/* mesh.c */
extern int mesh_fd; /* -1: no check under way */
void mesh_begin(void);
void mesh_read(void);
void mesh_abandon(void);

/* spawn.c */
extern int log_fd;        /* what the ssh servers say */
void spawn_prepare(void); /* HOME, log_fd */
void child_signals(void);
void log_read(void);
void spawn_ssh_server(int connection);
void spawn_ssh_server_ended(pid_t pid); /* of any child that has ended */
extern const int *command_failure;      /* why the command could not be executed, or 0 */
pid_t spawn_command(char **argv);       /* -1 with errno when it could not even fork */

/* The programs. */
int init_main(char **argv), solo_main(char **argv);
int shell_main(int argc, char **argv), ssh_main(int argc, char **argv);
