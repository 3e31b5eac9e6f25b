/* Calls without a C library in between: descriptors, vfork, and the interfaces of i386. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

static int low_port(int fd, int port)
{
    struct sockaddr_in address = { .sin_family = AF_INET, .sin_port = htons(port) };
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    return bind(fd, (struct sockaddr *)&address, sizeof address);
}

/* A call of i386, which x86-64 programs can make too. Its pointers have 32 bits. */
static long call32(long number, long a, long b, long c)
{
    long result;
    __asm__ volatile("int $0x80" : "=a"(result) : "a"(number), "b"(a), "c"(b), "d"(c)
                     : "memory", "r8", "r9", "r10", "r11");
    return (int)result;
}

int main(void)
{
    int raw = socket(AF_INET, SOCK_RAW, IPPROTO_ICMP);
    printf("raw %d\n", raw);
    close(0);
    int lowest = socket(AF_INET, SOCK_RAW, IPPROTO_ICMP);
    printf("closed %d\n", lowest);
    fflush(stdout);
    int good = 0;
    for (int round = 0; round < 100; round++) {
        pid_t child = vfork();
        if (child == 0) {
            int made = socket(AF_INET, SOCK_RAW, IPPROTO_ICMP);
            int stream = socket(AF_INET, SOCK_STREAM, 0);
            int failed = made < 0 || low_port(stream, 90) != 0;
            close(made);
            close(stream);
            _exit(failed);
        }
        int status = 1;
        waitpid(child, &status, 0);
        good += status == 0;
    }
    printf("vfork %d\n", good);
    fflush(stdout);
    if (call32(20, 0, 0, 0) != getpid()) {
        printf("no i386\n");
        return 0;
    }
    char *memory = mmap(0, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_32BIT, -1, 0);
    struct sockaddr_in *address = (struct sockaddr_in *)memory;
    address->sin_family = AF_INET;
    address->sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    printf("i386 socket %s\n", call32(359, AF_INET, SOCK_RAW, IPPROTO_ICMP) > 0 ? "ok" : "failed");
    int stream = socket(AF_INET, SOCK_STREAM, 0);
    address->sin_port = htons(91);
    printf("i386 bind %s\n", call32(361, stream, (long)memory, 16) == 0 ? "ok" : "failed");
    unsigned *words = (unsigned *)(memory + 256);
    words[0] = socket(AF_INET, SOCK_STREAM, 0);
    words[1] = (unsigned)(long)memory;
    words[2] = 16;
    address->sin_port = htons(92);
    printf("socketcall bind %s\n", call32(102, 2, (long)words, 0) == 0 ? "ok" : "failed");
    return 0;
}
