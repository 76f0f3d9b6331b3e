/* What the ssh server does differently in a container (linked with -Wl,--wrap=putenv). It runs as
 * the only user of all, in the folder and with the environment of the container's command, and a
 * session has them from it: what the server would set for a login on a machine is left out. */
#include <grp.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

char *login_home(void);
char *login_home(void) {
    static char home[] = "/run/phalanx/ssh";
    return home;
}

int __real_putenv(char *setting);
int __wrap_putenv(char *setting) {
    static const char *const kept[] = {"PATH=", "HOME=", "USER=", "LOGNAME=", "SHELL="};
    for (size_t i = 0; i < sizeof kept / sizeof *kept; i++)
        if (!strncmp(setting, kept[i], strlen(kept[i]))) return 0;
    return __real_putenv(setting);
}

int chdir(const char *path) {
    (void)path;
    return 0;
}

/* No supplementary group is looked up: the process keeps those that the engine gave it. */
int initgroups(const char *user, gid_t group) {
    (void)user;
    (void)group;
    return 0;
}
