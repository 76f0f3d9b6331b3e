/* What is different in the ssh client and its kin (linked with -Wl,--wrap=socket). */
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <sys/socket.h>

char *login_home(void);
char *login_home(void) {
    static char root[] = "/";
    char *home = getenv("HOME");
    return home && *home ? home : root;
}

/* TCP_NODELAY from the first byte on. OpenSSH sets it only once a session is interactive; before
 * that, Nagle's algorithm and delayed acknowledgements cost two 40 ms stalls in every key exchange.
 * Sockets that are not of TCP do not have it, and do not mind. */
int __real_socket(int domain, int type, int protocol);
int __wrap_socket(int domain, int type, int protocol) {
    int one = 1, fd = __real_socket(domain, type, protocol);
    if (fd >= 0) setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    return fd;
}
