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
struct peer { const char *name; int port; }; /* port 0: ssh_port */
struct conf {
    const char *kernel, *address, *interface, *workdir;
    int ssh_port, ssh_limit, master_port, mesh_timeout_s, linger_s, grace_s;
    bool run;
    int peer_count;
    struct peer *peers;
};
/* Parses `size` bytes of `text` in place; text[size] must be writable. Returns NULL, or the name of
 * the first key (or the word "line") that is wrong. */
const char *conf_parse(struct conf *conf, char *text, size_t size);
/* Reads the file. Returns as conf_parse() does; "missing" without a file. */
const char *conf_load(struct conf *conf);

/* command.c: one line from the agent. */
enum operation { OP_NONE, OP_MESH, OP_START, OP_STOP, OP_SIGNAL, OP_EXIT, OP_PING };
struct command {
    enum operation op;
    int signal, grace_ms; /* 0 and -1: not given */
};
/* `line` needs no terminator. False when it is no JSON object of plain values with a known op. */
bool command_parse(const char *line, size_t size, struct command *command);

/* main.c: milliseconds of a clock that is never set, and goes on while the machine is suspended. */
int64_t clock_ms(void);

/* events.c: the journal, and the connection to the agent. */
enum keep { KEEP, ONCE };      /* ONCE: of interest only while it happens, never replayed */
extern int agent_fd;           /* -1: not connected */
extern int64_t agent_retry_at; /* in clock_ms(), while not connected */
/* Fields are JSON members without the enclosing braces, "" for none. */
__attribute__((format(printf, 3, 4))) void event(enum keep keep, const char *name,
                                                 const char *fields, ...);
void agent_connect(const char *kernel);
void agent_read(void (*obey)(const struct command *));

/* net.c: the ssh port and its door. */
#define DOOR_LIMIT 128
struct guest { int fd; int64_t since; };
extern struct guest guests[DOOR_LIMIT]; /* new connections, until it is known what they want */
extern int guest_count;
bool address_on_interface(const char *address, const char *interface);
int listen_everywhere(int port); /* over IPv6 and IPv4, or only IPv4; -1 with errno */
void door_accept(int listener);
void door_look(int guest, int64_t now, bool readable);
int64_t door_deadline(void); /* -1: nobody waits */

/* mesh.c */
extern int mesh_fd;           /* -1: no check under way */
extern int64_t mesh_deadline; /* -1: no check under way */
void mesh_begin(const struct conf *conf);
void mesh_progress(int64_t now);
void mesh_abandon(void);

/* spawn.c */
extern int log_fd;                           /* what the ssh servers say */
void spawn_prepare(const struct conf *conf); /* HOME, the working directory, log_fd */
void log_read(void);
void spawn_ssh_server(int connection);
void spawn_ssh_server_ended(pid_t pid); /* of any child that has ended */
pid_t spawn_command(char **argv); /* 0 with errno when it could not even fork */
int spawn_command_failure(void);  /* 0, or why the command could not be executed */
void child_signals(void);
/* What an ssh session must find as the container has it although the server overwrites it. */
#define STASH "PHALANX_O_"
extern const char *const stashed[]; /* ends with NULL */

/* The programs. */
int init_main(char **argv), solo_main(char **argv);
int shell_main(int argc, char **argv), ssh_main(int argc, char **argv);
