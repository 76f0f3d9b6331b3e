/* The user database of the statically linked ssh programs.
 *
 * A static binary resolves getpwnam() when it is linked, so these definitions take the place of
 * libc's. Every login name is the uid that the program runs as; no file of the image is read. An
 * image needs no /etc/passwd, no /etc/shells and no home directory, and any uid can log in. */
#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

char *login_home(void); /* server_shim.c and client_shim.c: the directory that holds .ssh */

static char login[256], nothing[] = "", locked[] = "*", shell[] = "/opt/phalanx/bin/phalanx-shell";
static struct passwd entry = {
    .pw_name = login, .pw_passwd = locked, .pw_gecos = nothing, .pw_shell = shell};

struct passwd *getpwnam(const char *name) {
    snprintf(login, sizeof login, "%s", name);
    entry.pw_uid = getuid();
    entry.pw_gid = getgid();
    entry.pw_dir = login_home();
    return &entry;
}

struct passwd *getpwuid(uid_t uid) {
    const char *own = getenv("USER");
    return uid == getuid() ? getpwnam(own && *own ? own : "work") : NULL;
}

/* The server looks for everybody's shell in a list; it stops at the first that is the same. */
void setusershell(void) {}
void endusershell(void) {}
char *getusershell(void) { return shell; }

/* Where OpenSSH wants to know who else there is. */
struct passwd *getpwent(void) { return NULL; }
void endpwent(void) {}
