#include "phalanx.h"

#include <arpa/inet.h>
#include <errno.h>
#include <ifaddrs.h>
#include <netinet/in.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

bool address_on_interface(const char *address, const char *interface) {
    struct ifaddrs *all, *one;
    if (getifaddrs(&all))
        return false;
    for (one = all; one; one = one->ifa_next) {
        char text[INET6_ADDRSTRLEN] = "";
        const struct sockaddr *at = one->ifa_addr;
        if (!at || strcmp(one->ifa_name, interface))
            continue;
        if (at->sa_family == AF_INET)
            inet_ntop(AF_INET, &((const struct sockaddr_in *)at)->sin_addr, text, sizeof text);
        if (at->sa_family == AF_INET6)
            inet_ntop(AF_INET6, &((const struct sockaddr_in6 *)at)->sin6_addr, text, sizeof text);
        if (!strcmp(text, address))
            break;
    }
    freeifaddrs(all);
    return one != NULL;
}

/* All addresses, of both families where the kernel has IPv6. */
static int bind_everywhere(int port) {
    int one = 1, zero = 0;
    uint16_t number = htons((uint16_t)port);
    struct sockaddr_in6 six = {.sin6_family = AF_INET6, .sin6_port = number};
    struct sockaddr_in four = {.sin_family = AF_INET, .sin_port = number};
    int fd = socket(AF_INET6, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd >= 0) {
        setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
        setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &zero, sizeof zero);
        if (!bind(fd, (struct sockaddr *)&six, sizeof six))
            return fd;
        int why = errno;
        close(fd);
        errno = why;
        if (why == EADDRINUSE || why == EACCES)
            return -1;
    }
    fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return -1;
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (!bind(fd, (struct sockaddr *)&four, sizeof four))
        return fd;
    int why = errno;
    close(fd);
    errno = why;
    return -1;
}

int ssh_listen(int port) {
    int fd = bind_everywhere(port);
    if (fd < 0 || !listen(fd, 1024))
        return fd;
    int why = errno;
    close(fd);
    errno = why;
    return -1;
}

/* Only listening makes the kernel compare with other listeners that also set SO_REUSEADDR. */
bool port_is_free(int port) {
    int fd = ssh_listen(port);
    if (fd < 0)
        return false;
    close(fd);
    return true;
}
