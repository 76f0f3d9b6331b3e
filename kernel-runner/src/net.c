/* The ssh port. A peer of the mesh check says "PHXPING\n" and is answered here, so that a check
 * costs no ssh server; everybody else gets one of their own. */
#include "phalanx.h"

#include <net/if.h>
#include <sys/ioctl.h>

#define WORD_SIZE 8

bool address_on_interface(const char *address, const char *interface) {
    struct ifreq request = {.ifr_addr.sa_family = AF_INET};
    struct sockaddr_in *has = (struct sockaddr_in *)&request.ifr_addr;
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    snprintf(request.ifr_name, sizeof request.ifr_name, "%s", interface);
    bool known = !ioctl(fd, SIOCGIFADDR, &request);
    close(fd);
    return known && has->sin_addr.s_addr == inet_addr(address);
}

static int listen_with(sa_family_t family, int port) {
    /* What IPv4 has in an address is how one of IPv6 begins. */
    struct sockaddr_in6 all = {.sin6_family = family, .sin6_port = htons((uint16_t)port)};
    int yes = 1, no = 0, fd = socket(family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes);
    setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &no, sizeof no);
    /* This is also its connections. */
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes);
    /* The kernel keeps connections back until they have said something, but for no longer than a
     * second: some clients wait for the server's banner. */
    setsockopt(fd, IPPROTO_TCP, TCP_DEFER_ACCEPT, &yes, sizeof yes);
    if (!bind(fd, (struct sockaddr *)&all, sizeof all) && !listen(fd, 1024)) return fd;
    int why = errno;
    close(fd);
    errno = why;
    return -1;
}

int listen_everywhere(int port) {
    int fd = listen_with(AF_INET6, port);
    return fd < 0 && errno != EADDRINUSE ? listen_with(AF_INET, port) : fd;
}

void let_in(int listener) {
    char word[WORD_SIZE];
    int fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC); /* the server's reads wait */
    if (fd < 0) return;
    ssize_t got = recv(fd, word, WORD_SIZE, MSG_PEEK | MSG_DONTWAIT);
    if (got == WORD_SIZE && !memcmp(word, "PHXPING\n", WORD_SIZE)) {
        recv(fd, word, WORD_SIZE, 0); /* what is not read would reset the connection */
        send(fd, "PHXPONG\n", WORD_SIZE, MSG_NOSIGNAL | MSG_DONTWAIT);
    } else if (got > 0 || (got < 0 && errno == EAGAIN)) {
        spawn_ssh_server(fd);
    }
    close(fd);
}
