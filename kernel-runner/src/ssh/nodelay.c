/* TCP_NODELAY from the first byte on, for the ssh client (linked with -Wl,--wrap=socket).
 *
 * OpenSSH sets it only once a session is interactive; before that, Nagle's algorithm and delayed
 * acknowledgements cost two 40 ms stalls in every key exchange. */
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>

int __real_socket(int domain, int type, int protocol);
int __wrap_socket(int domain, int type, int protocol);

int __wrap_socket(int domain, int type, int protocol) {
    int fd = __real_socket(domain, type, protocol);
    int kind = type & ~(SOCK_CLOEXEC | SOCK_NONBLOCK);
    if (fd >= 0 && kind == SOCK_STREAM && (domain == AF_INET || domain == AF_INET6)) {
        int one = 1;
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    }
    return fd;
}
