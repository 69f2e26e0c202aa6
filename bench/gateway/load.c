/* What clients would do, and how long it took: one line of JSON.
 *
 *   load closed PORT REQUEST SECONDS CONNECTIONS           each connection asks again as soon as it is answered
 *   load open PORT REQUEST SECONDS CONNECTIONS PER_SECOND  at fixed times; a late start counts as latency
 *   load streams PORT REQUEST TOKENS STREAMS SPREAD_US PERIOD_US
 *                                                          event streams, one more each SPREAD_US
 *
 * REQUEST is a file with whole requests, a NUL between two; they are asked in turn. Latencies are milliseconds. Of streams: "way" is from upstream's
 * sending of a token until it is here, "jitter" how far the gap between two tokens is from PERIOD, "glued" how
 * many came in one piece with the one before, "late" how many came more than 20 ms after they were due,
 * "dropped" how many streams were not whole, to the last byte of their framing.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

typedef long long ns;

struct conn {
    int fd, busy;
    ns asked, last;
    char in[16384];
    size_t got;
    /* of a stream */
    long tokens;
    int digits;
    ns number;
    char end[8];
};

static struct series {
    float *value;
    size_t n, room;
} took, way, jitter, first;

static int poller, port;
static char *requests;
static size_t requests_size, next_at;
static long failed, glued, late_tokens, all_tokens;

static ns now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000000000LL + t.tv_nsec;
}

static void keep(struct series *s, ns value) {
    if (s->n == s->room) s->value = realloc(s->value, (s->room = s->room * 2 + 65536) * sizeof(float));
    s->value[s->n++] = value / 1e6;
}

static int compare(const void *a, const void *b) {
    float x = *(const float *)a, y = *(const float *)b;
    return (x > y) - (x < y);
}

static void tell(const char *name, struct series *s) {
    qsort(s->value, s->n, sizeof(float), compare);
    float p50 = s->n ? s->value[s->n / 2] : -1, p99 = s->n ? s->value[s->n * 99 / 100] : -1;
    printf(",\"%s_p50\":%.4f,\"%s_p99\":%.4f,\"%s_max\":%.3f", name, p50, name, p99, name, s->n ? s->value[s->n - 1] : -1);
}

static void dial(struct conn *c) {
    int on = 1;
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(port), .sin_addr = {htonl(INADDR_LOOPBACK)}};
    memset(c, 0, sizeof *c);
    c->fd = socket(AF_INET, SOCK_STREAM, 0);
    if (connect(c->fd, (void *)&to, sizeof to)) perror("load: connect"), exit(1);
    setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    struct epoll_event e = {.events = EPOLLIN, .data.ptr = c};
    epoll_ctl(poller, EPOLL_CTL_ADD, c->fd, &e);
}

static void ask(struct conn *c, ns asked) {
    c->asked = asked;
    c->busy = 1;
    c->got = 0;
    char *request = requests + next_at;
    size_t size = strlen(request);
    next_at = next_at + size + 1 < requests_size ? next_at + size + 1 : 0;
    if (send(c->fd, request, size, MSG_NOSIGNAL) != (ssize_t)size) perror("load: send"), exit(1);
}

/* 1: the answer is whole; 0: more comes; -1: it failed. */
static int hear(struct conn *c) {
    ssize_t n = recv(c->fd, c->in + c->got, sizeof c->in - 1 - c->got, MSG_DONTWAIT);
    if (n < 0 && errno == EAGAIN) return 0;
    if (n <= 0) return -1;
    c->in[c->got += n] = 0;
    char *end = strstr(c->in, "\r\n\r\n");
    if (!end) return c->got < sizeof c->in - 1 ? 0 : -1;
    if (strncmp(c->in + 8, " 200", 4)) return -1;
    char *length = strcasestr(c->in, "\ncontent-length:");
    if (length && length < end) return c->got >= end + 4 - c->in + strtoul(length + 16, 0, 10);
    return c->got > 5 && !memcmp(c->in + c->got - 5, "0\r\n\r\n", 5);
}

static int await(struct epoll_event *got, ns until) {
    ns left = until - now();
    struct timespec t = {left > 0 ? left / 1000000000LL : 0, left > 0 ? left % 1000000000LL : 0};
    return epoll_pwait2(poller, got, 256, &t, 0);
}

static void answered(struct conn *c, ns began, ns from) {
    int whole = hear(c);
    if (!whole) return;
    c->busy = 0;
    if (whole < 0) {
        if (!failed++) fprintf(stderr, "load: %.300s\n", c->got ? c->in : "hung up");
        close(c->fd);
        dial(c);
    } else if (began >= from)
        keep(&took, now() - c->asked);
}

static void closed(struct conn *all, int count, ns seconds) {
    ns from = now(), until = from + seconds;
    struct epoll_event got[256];
    for (int i = 0; i < count; i++) ask(&all[i], now());
    while (now() < until) {
        int n = await(got, until);
        for (int i = 0; i < n; i++) {
            struct conn *c = got[i].data.ptr;
            answered(c, c->asked, from);
            if (!c->busy) ask(c, now());
        }
    }
    double rate = took.n / ((now() - from) / 1e9);
    printf("{\"per_s\":%.0f,\"answered\":%zu,\"failed\":%ld", rate, took.n, failed);
    tell("took", &took);
}

static void open_loop(struct conn *all, int count, ns seconds, long per_s) {
    ns from = now() + 1000000, gap = 1000000000LL / per_s, last = from + seconds;
    long due = 0, total = seconds / gap, next = 0;
    struct epoll_event got[256];
    while ((due < total || (long)took.n + failed < total) && now() < last + 2000000000LL) {
        while (due < total && from + due * gap <= now()) {
            int tries = 0;
            while (tries < count && all[next % count].busy) next++, tries++;
            if (tries == count) break;
            ask(&all[next++ % count], from + due++ * gap);
        }
        int n = await(got, due < total && from + due * gap > now() ? from + due * gap : now() + 1000000);
        for (int i = 0; i < n; i++) answered(got[i].data.ptr, from, from);
    }
    printf("{\"asked\":%ld,\"answered\":%zu,\"failed\":%ld", total, took.n, total - (long)took.n);
    tell("took", &took);
}

static void token(struct conn *c, ns at, ns period, int *here) {
    keep(&way, at - c->number);
    if (at - c->number > 20000000) late_tokens++;
    if (!c->tokens) keep(&first, at - c->asked);
    else keep(&jitter, llabs(at - c->last - period));
    glued += (*here)++ > 0;
    all_tokens++;
    c->tokens++;
    c->last = at;
}

static void scan(struct conn *c, const char *data, ssize_t size, ns period) {
    ns at = now();
    int here = 0;
    for (ssize_t i = 0; i < size; i++) {
        if (data[i] == '@') c->digits = 1, c->number = 0;
        else if (c->digits && data[i] >= '0' && data[i] <= '9') c->number = c->number * 10 + data[i] - '0';
        else if (c->digits) c->digits = 0, token(c, at, period, &here);
    }
    for (ssize_t i = size > 5 ? size - 5 : 0; i < size; i++) memmove(c->end, c->end + 1, 4), c->end[4] = data[i];
}

static void streams(struct conn *all, int count, long tokens, ns spread, ns period) {
    ns from = now(), until = from + spread * count + period * tokens + 5000000000LL;
    int begun = 0, over = 0, whole = 0;
    struct epoll_event got[256];
    char data[65536];
    while (over < count && now() < until) {
        while (begun < count && from + begun * spread <= now()) {
            ns asked = now();
            dial(&all[begun]);
            ask(&all[begun++], asked);
        }
        int n = await(got, begun < count ? from + begun * spread : until);
        for (int i = 0; i < n; i++) {
            struct conn *c = got[i].data.ptr;
            ssize_t size = recv(c->fd, data, sizeof data, MSG_DONTWAIT);
            if (size > 0) scan(c, data, size, period);
            int done = !memcmp(c->end, "0\r\n\r\n", 5);
            if (!done && (size > 0 || (size < 0 && errno == EAGAIN))) continue;
            whole += done && c->tokens == tokens;
            over++;
            close(c->fd);
        }
    }
    printf("{\"streams\":%d,\"dropped\":%d,\"tokens\":%ld,\"glued\":%ld,\"late\":%ld", count, count - whole, all_tokens,
           glued, late_tokens);
    tell("first", &first);
    tell("way", &way);
    tell("jitter", &jitter);
}

int main(int argc, char **argv) {
    if (argc < 6) return fprintf(stderr, "load: see its source\n"), 2;
    struct rlimit files = {65536, 65536};
    setrlimit(RLIMIT_NOFILE, &files);
    port = atoi(argv[2]);
    FILE *file = fopen(argv[3], "rb");
    requests = calloc(1, 16 << 20);
    if (!file || !(requests_size = fread(requests, 1, (16 << 20) - 1, file))) return perror("load: request"), 1;
    poller = epoll_create1(0);
    ns seconds = atof(argv[4]) * 1e9;
    int count = atoi(argv[5]);
    struct conn *all = calloc(count, sizeof *all);
    if (strcmp(argv[1], "streams"))
        for (int i = 0; i < count; i++) dial(&all[i]);
    if (!strcmp(argv[1], "closed")) closed(all, count, seconds);
    else if (!strcmp(argv[1], "open") && argc > 6) open_loop(all, count, seconds, atol(argv[6]));
    else if (!strcmp(argv[1], "streams") && argc > 7)
        streams(all, count, atol(argv[4]), atoll(argv[6]) * 1000, atoll(argv[7]) * 1000);
    else return 2;
    printf("}\n");
    return 0;
}
