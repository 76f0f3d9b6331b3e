/* The user database of the statically linked ssh programs.
 *
 * A static binary resolves getpwnam() when it is linked, so these definitions take the place of
 * libc's. Every login name is the uid that the program runs as; no file of the image is read. An
 * image needs no /etc/passwd, no /etc/shells and no home directory, and any uid can log in.
 *
 * The runner gives the directory that holds .ssh/authorized_keys and the login shell to the server
 * in two variables; the clients have neither and use HOME. */
#include <grp.h>
#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#define LOGIN_SHELL "/opt/phalanx/bin/phalanx-shell"

static struct passwd entry;
static char login[256];
static int shells_told;

static char *setting(const char *name, char *otherwise) {
    char *value = getenv(name);
    return value && *value ? value : otherwise;
}

static char *login_shell(void) {
    static char shell[] = LOGIN_SHELL;
    return setting("PHALANX_SSH_SHELL", shell);
}

static struct passwd *entry_of(const char *name) {
    static char none[] = "", locked[] = "*", root[] = "/", work[] = "work";
    snprintf(login, sizeof login, "%s", name && *name ? name : setting("USER", work));
    entry.pw_name = login;
    entry.pw_passwd = locked;
    entry.pw_gecos = none;
    entry.pw_uid = getuid();
    entry.pw_gid = getgid();
    entry.pw_dir = setting("PHALANX_SSH_HOME", setting("HOME", root));
    entry.pw_shell = login_shell();
    return &entry;
}

struct passwd *getpwnam(const char *name) { return entry_of(name); }
struct passwd *getpwuid(uid_t uid) { return uid == getuid() ? entry_of(NULL) : NULL; }

/* musl keeps these in one object with getpwent(): all of them must be here or the link fails. */
void setpwent(void) {}
void endpwent(void) {}
struct passwd *getpwent(void) { return NULL; }

/* The server asks for the list once per authentication request, each time from the beginning. */
void setusershell(void) { shells_told = 0; }
void endusershell(void) {}
char *getusershell(void) { return shells_told++ ? NULL : login_shell(); }

/* No supplementary group is looked up: the process keeps those that the engine gave it. */
int initgroups(const char *user, gid_t group) {
    (void)user;
    (void)group;
    return 0;
}

int getgrouplist(const char *user, gid_t group, gid_t *groups, int *count) {
    (void)user;
    if (*count < 1) {
        *count = 1;
        return -1;
    }
    groups[0] = group;
    *count = 1;
    return 1;
}
