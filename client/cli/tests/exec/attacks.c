/* Changes what a call refers to while the call waits for its answer. Each part prints "held" if no socket got a port
 * that the policy does not grant: only 84 is granted. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

enum { ROUNDS = 150, GRANTED = 84, REFUSED = 22 };

static struct sockaddr_in address;
static volatile int going = 1;
static int sockets[2];

static void fill(struct sockaddr_in *of, int port)
{
    memset(of, 0, sizeof *of);
    of->sin_family = AF_INET;
    of->sin_port = htons(port);
    of->sin_addr.s_addr = htonl(INADDR_LOOPBACK);
}

/* The low port that a socket has. */
static int port_of(int fd)
{
    struct sockaddr_in own;
    socklen_t length = sizeof own;
    if (getsockname(fd, (struct sockaddr *)&own, &length) != 0 || own.sin_family != AF_INET)
        return 0;
    return ntohs(own.sin_port);
}

static int is_bad(int fd)
{
    int port = port_of(fd);
    return port != 0 && port < 1024 && port != GRANTED;
}

static void *flip_address(void *unused)
{
    volatile in_port_t *port = &address.sin_port;
    while (going) {
        *port = htons(REFUSED);
        *port = htons(GRANTED);
    }
    return 0;
}

/* Another socket takes the number of the one that is being bound. */
static void *swap_descriptors(void *unused)
{
    while (going) {
        dup2(sockets[0], 100);
        dup2(sockets[1], 100);
    }
    return 0;
}

static int address_part(void)
{
    int bad = 0, bound = 0;
    pthread_t thread;
    fill(&address, GRANTED);
    pthread_create(&thread, 0, flip_address, 0);
    for (int round = 0; round < ROUNDS; round++) {
        int fd = socket(AF_INET, SOCK_STREAM, 0);
        int one = 1;
        setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
        bound += bind(fd, (struct sockaddr *)&address, sizeof address) == 0;
        bad += is_bad(fd);
        close(fd);
    }
    going = 0;
    pthread_join(thread, 0);
    return bad == 0 && bound > 0;
}

static int descriptor_part(void)
{
    int bad = 0;
    pthread_t thread;
    sockets[0] = socket(AF_INET, SOCK_STREAM, 0);
    /* A socket that the policy grants no port. */
    sockets[1] = socket(AF_INET, SOCK_DGRAM, 0);
    dup2(sockets[0], 100);
    pthread_create(&thread, 0, swap_descriptors, 0);
    for (int round = 0; round < ROUNDS; round++) {
        fill(&address, round % 2 ? GRANTED : REFUSED);
        bind(100, (struct sockaddr *)&address, sizeof address);
        bad += is_bad(sockets[0]) + (port_of(sockets[1]) != 0);
    }
    going = 0;
    pthread_join(thread, 0);
    return bad == 0;
}

/* Processes that are killed in the middle of a call: their ids are used again by processes with another address. */
static int thread_part(void)
{
    int bad = 0;
    for (int round = 0; round < ROUNDS; round++) {
        pid_t child = fork();
        if (child == 0) {
            int fd = socket(AF_INET, SOCK_STREAM, 0);
            fill(&address, round % 2 ? GRANTED : REFUSED);
            int result = bind(fd, (struct sockaddr *)&address, sizeof address);
            _exit(is_bad(fd) || (result == 0 && round % 2 == 0));
        }
        if (round % 3 == 0) {
            usleep(round * 10);
            kill(child, SIGKILL);
        }
        int status;
        waitpid(child, &status, 0);
        bad += WIFEXITED(status) && WEXITSTATUS(status) != 0;
    }
    return bad == 0;
}

int main(int count, char **words)
{
    int held = 0;
    if (count > 1 && strcmp(words[1], "address") == 0)
        held = address_part();
    if (count > 1 && strcmp(words[1], "descriptor") == 0)
        held = descriptor_part();
    if (count > 1 && strcmp(words[1], "thread") == 0)
        held = thread_part();
    puts(held ? "held" : "got a port");
    return 0;
}
