/* One static program under several names. */
#include "phalanx.h"

int64_t clock_ms(void) {
    struct timespec now;
    clock_gettime(CLOCK_BOOTTIME, &now);
    return now.tv_sec * INT64_C(1000) + now.tv_nsec / 1000000;
}

int become(const char *who, char **argv) {
    execvp(argv[0], argv);
    int why = errno;
    dprintf(2, "%s: %s: %s\n", who, argv[0], strerror(why));
    errno = why;
    return why == ENOENT ? EXIT_NOT_FOUND : EXIT_NOT_EXECUTABLE;
}

int main(int argc, char **argv) {
    const char *slash = argc ? strrchr(argv[0], '/') : NULL;
    const char *name = slash ? slash + 1 : argc ? argv[0] : "";
    name += *name == '-'; /* a login shell */
    if (!strcmp(name, "phalanx-init")) return init_main(argv + 1);
    if (!strcmp(name, "phalanx-shell")) return shell_main(argc, argv);
    if (!strcmp(name, "phalanx-solo")) return solo_main(argv + 1);
    if (!strcmp(name, "ssh")) return ssh_main(argc, argv);
    fprintf(stderr, "phalanx-runner: run it as phalanx-init, phalanx-shell, phalanx-solo or ssh\n");
    return EXIT_REFUSED;
}
