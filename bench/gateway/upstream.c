/* A server of models that costs next to nothing, so that what stands before it can be measured.
 *
 * One thread, one epoll. POST with "stream":true in its body gets "max_tokens" events, the first at once and
 * then one each PERIOD; any other POST gets a small completion. Every token carries the monotonic time at
 * which it was sent ("@nanoseconds "), so a client knows how long that token was under way. Requests must
 * state their Content-Length. A peer that does not read is cut off after 1 MiB.
 *
 * Usage: upstream PORT PERIOD_US
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <time.h>
#include <unistd.h>

enum { READ_MAX = 1 << 16, FDS = 65536 };

struct conn {
    int fd, place; /* place in the heap, -1: not in it */
    char *in;
    size_t got, room;
    char *out;
    size_t kept;
    long left; /* tokens */
    long tokens;
    long long due;
};

static int poller;
static long long period;
static struct conn *heap[FDS];
static int waiting;

static long long now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000000000LL + t.tv_nsec;
}

static void put(int at, struct conn *c) {
    heap[at] = c;
    c->place = at;
}

static void sift(int at, struct conn *c) {
    while (at > 0 && heap[(at - 1) / 2]->due > c->due) put(at, heap[(at - 1) / 2]), at = (at - 1) / 2;
    for (;;) {
        int child = 2 * at + 1;
        if (child >= waiting) break;
        if (child + 1 < waiting && heap[child + 1]->due < heap[child]->due) child++;
        if (heap[child]->due >= c->due) break;
        put(at, heap[child]);
        at = child;
    }
    put(at, c);
}

static void remind(struct conn *c, long long due) {
    c->due = due;
    sift(c->place < 0 ? waiting++ : c->place, c);
}

static void forget(struct conn *c) {
    if (c->place < 0) return;
    struct conn *last = heap[--waiting];
    if (last != c) sift(c->place, last);
    c->place = -1;
}

static void hang_up(struct conn *c) {
    forget(c);
    close(c->fd);
    free(c->in);
    free(c->out);
    free(c);
}

static int flush(struct conn *c) {
    ssize_t n = c->kept ? send(c->fd, c->out, c->kept, MSG_NOSIGNAL) : 0;
    if (n < 0) return errno == EAGAIN;
    memmove(c->out, c->out + n, c->kept - n);
    c->kept -= n;
    struct epoll_event e = {.events = EPOLLIN | (c->kept ? EPOLLOUT : 0), .data.ptr = c};
    epoll_ctl(poller, EPOLL_CTL_MOD, c->fd, &e);
    return 1;
}

static int say(struct conn *c, const char *text, size_t size) {
    if (!c->kept) {
        ssize_t n = send(c->fd, text, size, MSG_NOSIGNAL);
        if (n == (ssize_t)size) return 1;
        if (n < 0 && errno != EAGAIN) return 0;
        if (n > 0) text += n, size -= n;
    }
    if (c->kept + size > 1 << 20) return 0;
    c->out = realloc(c->out, c->kept + size);
    memcpy(c->out + c->kept, text, size);
    c->kept += size;
    return flush(c);
}

static int chunk(char *to, const char *data, int size) { return sprintf(to, "%x\r\n%.*s\r\n", size, size, data); }

/* The next token, with the head before the first and the end after the last one. */
static int token(struct conn *c) {
    static const char head[] =
        "HTTP/1.1 200 OK\r\nServer: double\r\nContent-Type: text/event-stream\r\n"
        "Cache-Control: no-cache\r\nTransfer-Encoding: chunked\r\n\r\n";
    char text[2048], data[512];
    int size = 0;
    if (c->left == c->tokens) size = sprintf(text, "%s", head);
    int n = sprintf(data,
                    "data: {\"id\":\"c-1\",\"object\":\"chat.completion.chunk\",\"created\":1,\"model\":\"m1\","
                    "\"choices\":[{\"index\":0,\"delta\":{\"content\":\"@%lld \"},\"finish_reason\":null}]}\n\n",
                    now());
    size += chunk(text + size, data, n);
    if (--c->left == 0) {
        n = sprintf(data,
                    "data: {\"id\":\"c-1\",\"object\":\"chat.completion.chunk\",\"created\":1,\"model\":\"m1\","
                    "\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"stop\"}],\"usage\":"
                    "{\"prompt_tokens\":9,\"completion_tokens\":%ld,\"total_tokens\":%ld}}\n\ndata: [DONE]\n\n",
                    c->tokens, c->tokens + 9);
        size += chunk(text + size, data, n);
        size += sprintf(text + size, "0\r\n\r\n");
    }
    return say(c, text, size);
}

static int complete(struct conn *c) {
    static const char body[] =
        "{\"id\":\"c-1\",\"object\":\"chat.completion\",\"created\":1,\"model\":\"m1\",\"choices\":[{\"index\":0,"
        "\"message\":{\"role\":\"assistant\",\"content\":\"The quick brown fox.\"},\"finish_reason\":\"stop\"}],"
        "\"usage\":{\"prompt_tokens\":9,\"completion_tokens\":5,\"total_tokens\":14}}";
    static char text[1024];
    static int size;
    if (!size)
        size = sprintf(text,
                       "HTTP/1.1 200 OK\r\nServer: double\r\nContent-Type: application/json\r\n"
                       "Content-Length: %zu\r\n\r\n%s",
                       sizeof body - 1, body);
    return say(c, text, size);
}

/* Answer all whole requests that were read; 0: hang up. */
static int serve(struct conn *c) {
    while (c->got && !c->left) {
        c->in[c->got] = 0;
        char *end = memmem(c->in, c->got, "\r\n\r\n", 4);
        if (!end) return c->got < READ_MAX;
        *end = 0;
        char *length = strcasestr(c->in, "\ncontent-length:");
        size_t head = end + 4 - c->in, body = length ? strtoul(length + 16, 0, 10) : 0;
        int post = !strncmp(c->in, "POST ", 5);
        *end = '\r';
        if (c->got < head + body) return head + body < 64u << 20;
        char after = c->in[head + body], *at;
        c->in[head + body] = 0;
        int stream = (at = strstr(c->in + head, "\"stream\":")) && at[9 + (at[9] == ' ')] == 't';
        long tokens = (at = strstr(c->in + head, "\"max_tokens\":")) ? strtol(at + 13, 0, 10) : 16;
        c->in[head + body] = after;
        memmove(c->in, c->in + head + body, c->got -= head + body);
        static const char none[] = "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n";
        if (!post) {
            if (!say(c, none, sizeof none - 1)) return 0;
        } else if (!stream) {
            if (!complete(c)) return 0;
        } else {
            c->left = c->tokens = tokens;
            if (!token(c)) return 0;
            if (c->left) remind(c, now() + period);
        }
    }
    return 1;
}

static int hear(struct conn *c) {
    if (c->room - c->got < 4096) c->in = realloc(c->in, (c->room = c->room * 2 + 8192) + 1);
    ssize_t n = recv(c->fd, c->in + c->got, c->room - c->got, 0);
    if (n < 0) return errno == EAGAIN;
    if (n == 0) return 0;
    c->got += n;
    return serve(c);
}

static void welcome(int door) {
    int fd, on = 1;
    while ((fd = accept4(door, 0, 0, SOCK_NONBLOCK)) >= 0) {
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
        struct conn *c = calloc(1, sizeof *c);
        c->fd = fd;
        c->place = -1;
        struct epoll_event e = {.events = EPOLLIN, .data.ptr = c};
        epoll_ctl(poller, EPOLL_CTL_ADD, fd, &e);
    }
}

static void tick(void) {
    while (waiting && heap[0]->due <= now()) {
        struct conn *c = heap[0];
        if (!token(c))
            hang_up(c);
        else if (c->left)
            remind(c, c->due + period);
        else {
            forget(c);
            if (!serve(c)) hang_up(c);
        }
    }
}

int main(int argc, char **argv) {
    if (argc != 3) return 2;
    signal(SIGPIPE, SIG_IGN);
    period = atoll(argv[2]) * 1000;
    int on = 1, door = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    setsockopt(door, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_port = htons(atoi(argv[1])), .sin_addr = {htonl(INADDR_LOOPBACK)}};
    if (bind(door, (void *)&at, sizeof at) || listen(door, 4096)) return perror("upstream"), 1;
    poller = epoll_create1(0);
    struct epoll_event e = {.events = EPOLLIN, .data.ptr = 0}, got[256];
    epoll_ctl(poller, EPOLL_CTL_ADD, door, &e);
    for (;;) {
        long long wait = waiting ? heap[0]->due - now() : 1000000000LL;
        struct timespec t = {wait > 0 ? wait / 1000000000LL : 0, wait > 0 ? wait % 1000000000LL : 0};
        int n = epoll_pwait2(poller, got, 256, &t, 0);
        for (int i = 0; i < n; i++) {
            struct conn *c = got[i].data.ptr;
            if (!c)
                welcome(door);
            else if (got[i].events & (EPOLLIN | EPOLLHUP | EPOLLERR) ? !hear(c) : !flush(c))
                hang_up(c);
        }
        tick();
    }
}
