#include "runtime/logs.h"

#include "base/alloc.h"
#include "base/fd.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/inotify.h>
#include <sys/stat.h>
#include <unistd.h>

enum { READ_SIZE = 64 * 1024, RECALL_SIZE = 1 << 20 };

/* A line of one stream whose end has not come. */
struct part {
    struct zl_buf text;
    char time[64];
};

struct zl_log_reader {
    int dir, fd, notify;
    uint64_t generation; /* of fd */
    uint64_t offset;     /* in the file, of buf[0] */
    char *buf;
    size_t from, to;
    struct part parts[2]; /* of stdout, stderr */
    struct zl_buf entry;  /* what the last entry's text views */
    char time[64];
};

int zl_log_reader_open(int containers, const char *id, struct zl_log_reader **ret)
{
    int dir = zl_openat(containers, id, O_RDONLY | O_DIRECTORY, 0);
    if (dir < 0)
        return dir;
    struct zl_log_reader *r = zl_xcalloc(1, sizeof *r);
    r->dir = dir;
    r->fd = r->notify = -EBADF;
    r->buf = zl_xmalloc(READ_SIZE);
    *ret = r;
    return 0;
}

struct zl_log_reader *zl_log_reader_free(struct zl_log_reader *r)
{
    if (r) {
        zl_close(r->dir);
        zl_close(r->fd);
        zl_close(r->notify);
        zl_buf_done(&r->parts[0].text);
        zl_buf_done(&r->parts[1].text);
        zl_buf_done(&r->entry);
        free(r->buf);
        free(r);
    }
    return NULL;
}

/* The lowest and the highest generation that has ended; 0 when none has. */
static void ended_range(int dir, uint64_t *lowest, uint64_t *highest)
{
    int fd = zl_openat(dir, ".", O_RDONLY | O_DIRECTORY, 0);
    DIR *d = fd < 0 ? NULL : fdopendir(fd);
    struct dirent *e;
    *lowest = *highest = 0;
    while (d && (e = readdir(d)) != NULL) {
        uint64_t g;
        struct zl_str s = zl_str(e->d_name);
        if (!zl_str_starts(s, ZL_STR("log.")) || zl_parse_u64(zl_str_n(s.p + 4, s.n - 4), 1, UINT64_MAX - 1, &g) < 0)
            continue;
        *highest = ZL_MAX(*highest, g);
        *lowest = *lowest ? ZL_MIN(*lowest, g) : g;
    }
    if (d)
        closedir(d);
}

static int open_ended(int dir, uint64_t generation)
{
    char name[40];
    snprintf(name, sizeof name, "log.%llu", (unsigned long long)generation);
    return zl_openat(dir, name, O_RDONLY, 0);
}

/*
 * Opens a generation, or the oldest there is when that one is gone (or 0). The current file has no number in its name:
 * it is the one behind the highest ended one, if that did not change while it was opened. -ENOENT: not there yet.
 */
static int open_generation(struct zl_log_reader *r, uint64_t generation)
{
    for (int tries = 0; tries < 100; tries++) {
        uint64_t lowest, highest, low2, high2;
        ended_range(r->dir, &lowest, &highest);
        uint64_t g = ZL_MAX(generation, lowest ? lowest : highest + 1);
        if (g > highest + 1)
            g = highest + 1; /* a cursor from the future is one of another instance */
        zl_auto_close int fd = g <= highest ? open_ended(r->dir, g) : zl_openat(r->dir, "log", O_RDONLY, 0);
        if (fd == -ENOENT && g > highest) {
            ended_range(r->dir, &low2, &high2);
            if (high2 == highest)
                return -ENOENT;
            continue;
        }
        if (fd == -ENOENT)
            continue;
        if (fd < 0)
            return fd;
        ended_range(r->dir, &low2, &high2);
        if (g > highest && high2 != highest)
            continue;
        zl_close(r->fd);
        r->fd = ZL_TAKE_FD(fd);
        r->generation = g;
        return 0;
    }
    return -EAGAIN;
}

void zl_log_reader_seek(struct zl_log_reader *r, struct zl_log_cursor cursor)
{
    r->from = r->to = 0;
    zl_buf_clear(&r->parts[0].text);
    zl_buf_clear(&r->parts[1].text);
    r->fd = zl_close(r->fd);
    r->generation = cursor.generation;
    r->offset = cursor.offset;
}

/* "time stream tag text": false when it is no such line. */
static bool split(struct zl_str line, struct zl_str *time, unsigned *stream, bool *full, struct zl_str *text)
{
    struct zl_str rest, name, tag;
    *time = zl_str_cut(line, ' ', &rest);
    if (!rest.p || time->n >= 64)
        return false;
    name = zl_str_cut(rest, ' ', &rest);
    if (!rest.p)
        return false;
    tag = zl_str_cut(rest, ' ', &rest);
    if (!rest.p || tag.n != 1 || (*tag.p != 'P' && *tag.p != 'F'))
        return false;
    if (!zl_str_is(name, "stdout") && !zl_str_is(name, "stderr"))
        return false;
    *stream = zl_str_is(name, "stderr");
    *full = *tag.p == 'F';
    *text = rest;
    return true;
}

/* Adds a part to its line; false when that would be too long for one entry. */
static bool add_part(struct part *p, struct zl_str time, struct zl_str text)
{
    if (p->text.n + text.n > ZL_LOG_LINE_MAX - 16384)
        return false;
    if (p->text.n == 0)
        snprintf(p->time, sizeof p->time, "%.*s", ZL_STR_FMT(time));
    zl_buf_add_str(&p->text, text);
    return true;
}

/* Goes over the CRI lines of a piece of a file as a reader would; *last: the stream of the last one. */
static void replay(struct zl_log_reader *r, int fd, uint64_t from, uint64_t to, unsigned *last)
{
    size_t size = (size_t)(to - from);
    zl_auto_free char *block = zl_xmalloc(size + 1);
    ssize_t n = pread(fd, block, size, (off_t)from);
    struct zl_str rest = zl_str_n(block, n > 0 ? (size_t)n : 0);
    if (from > 0)
        (void)zl_str_cut(rest, '\n', &rest); /* the line that the window cut in two */
    while (rest.p && rest.n) {
        struct zl_str time, text;
        bool full;
        if (!split(zl_str_cut(rest, '\n', &rest), &time, last, &full, &text)) {
            *last = 0;
            full = true;
        }
        if (full || !add_part(&r->parts[*last], time, text))
            zl_buf_clear(&r->parts[*last].text);
    }
}

/*
 * A cursor may stand between the parts of a line, as lines of the other stream come in between, in this file or at the
 * end of the one before. What lies before it is looked at again, so that those lines are whole for a reader who goes on
 * from there. The line that the cursor was given with is done with: nothing of its stream is waiting.
 */
static void recall_parts(struct zl_log_reader *r)
{
    unsigned last = 0;
    uint64_t from = r->offset > RECALL_SIZE ? r->offset - RECALL_SIZE : 0;
    struct stat st;
    zl_auto_close int before = from == 0 && r->generation > 1 ? open_ended(r->dir, r->generation - 1) : -EBADF;
    if (before >= 0 && fstat(before, &st) == 0) {
        uint64_t end = (uint64_t)st.st_size, room = RECALL_SIZE - r->offset;
        replay(r, before, end > room ? end - room : 0, end, &last);
    }
    replay(r, r->fd, from, r->offset, &last);
    zl_buf_clear(&r->parts[last].text);
}

/* Opens what the cursor names; an offset counts only in the file that it was taken in. */
static int ensure_open(struct zl_log_reader *r)
{
    if (r->fd >= 0)
        return 0;
    uint64_t wanted = r->generation;
    int e = open_generation(r, wanted);
    struct stat st;
    if (e == 0 && (r->generation != wanted || fstat(r->fd, &st) < 0 || r->offset > (uint64_t)st.st_size))
        r->offset = 0;
    if (e == 0 && r->offset > 0 && r->to == 0)
        recall_parts(r);
    return e;
}

/* 1: there are more bytes, 0: none for now. Moves on to the next file when this one has ended. */
static int fill(struct zl_log_reader *r)
{
    if (r->from > 0) {
        memmove(r->buf, r->buf + r->from, r->to - r->from);
        r->to -= r->from;
        r->offset += r->from;
        r->from = 0;
    }
    for (;;) {
        int e = ensure_open(r);
        if (e < 0)
            return e == -ENOENT ? 0 : e;
        uint64_t lowest, highest;
        ssize_t n = pread(r->fd, r->buf + r->to, READ_SIZE - r->to, (off_t)(r->offset + r->to));
        if (n < 0)
            return -errno;
        if (n > 0) {
            r->to += (size_t)n;
            return 1;
        }
        ended_range(r->dir, &lowest, &highest);
        if (highest < r->generation)
            return 0; /* still the current one */
        /* It had ended; but bytes may have come between that read and the end. */
        n = pread(r->fd, r->buf + r->to, READ_SIZE - r->to, (off_t)(r->offset + r->to));
        if (n < 0)
            return -errno;
        r->to += (size_t)n;
        if (n > 0)
            return 1;
        if (r->to > 0)
            return 0; /* an unfinished CRI line at the end of a file: its shim died in the middle; taken as it is */
        r->fd = zl_close(r->fd);
        r->generation++;
        r->offset = 0;
    }
}

static void give(struct zl_log_reader *r, struct zl_str time, unsigned stream, struct zl_str text, bool partial,
                 struct zl_log_entry *ret)
{
    struct part *p = &r->parts[stream];
    zl_buf_clear(&r->entry);
    zl_buf_add_str(&r->entry, zl_buf_view(&p->text));
    zl_buf_add_str(&r->entry, text);
    if (p->text.n)
        snprintf(r->time, sizeof r->time, "%s", p->time);
    else
        snprintf(r->time, sizeof r->time, "%.*s", ZL_STR_FMT(time));
    zl_buf_clear(&p->text);
    *ret = (struct zl_log_entry){ .time = zl_str(r->time),
                                  .is_stderr = stream == 1,
                                  .partial = partial,
                                  .text = zl_buf_view(&r->entry),
                                  .cursor = { r->generation, r->offset + r->from } };
}

/* Takes the CRI line of `n` bytes at `from` (and `end` bytes behind it): true when there is an entry to give. */
static bool take_line(struct zl_log_reader *r, size_t n, size_t end, struct zl_log_entry *ret)
{
    struct zl_str time = { "", 0 }, text = zl_str_n(r->buf + r->from, n);
    unsigned stream = 0;
    bool full = true;
    (void)split(text, &time, &stream, &full, &text); /* what is no such line is text as it is */
    r->from += n + end;
    if (!full && add_part(&r->parts[stream], time, text))
        return false;
    give(r, time, stream, text, !full, ret);
    return true;
}

/* Whether the CRI line that begins here is the last part of a line; what is no CRI line is one. */
static bool is_full(struct zl_str head)
{
    struct zl_str time, text;
    unsigned stream;
    bool full;
    return !split(head, &time, &stream, &full, &text) || full;
}

/*
 * Goes back from the end of a file over the lines that begin in it, counting whole ones. 1: *ret is where the wanted
 * number of them begins; 0: there are fewer, and *left are still wanted.
 */
static int scan_back(int fd, uint64_t *left, uint64_t *ret)
{
    enum { HEAD = 96 };
    zl_auto_free char *block = zl_xmalloc(READ_SIZE + HEAD);
    struct stat st;
    if (fstat(fd, &st) < 0)
        return -errno;
    uint64_t next = (uint64_t)st.st_size; /* where the line behind the looked-at one begins */
    bool last = true;                     /* nothing was looked at yet: what follows the last newline does not count */
    for (uint64_t high = next; high > 0;) {
        uint64_t low = high > READ_SIZE ? high - READ_SIZE : 0;
        ssize_t n = pread(fd, block, READ_SIZE + HEAD, (off_t)low);
        if (n < 0)
            return -errno;
        size_t have = (size_t)n;
        for (uint64_t at = high; at-- > low;) {
            size_t i = (size_t)(at - low);
            bool begins = at == 0 || (i < have && block[i] == '\n');
            uint64_t start = at == 0 && !(i < have && block[i] == '\n') ? 0 : at + 1;
            if (!begins)
                continue;
            if (start >= next) { /* the newline at the very end */
                last = false;
                next = start;
                continue;
            }
            size_t h = (size_t)(start - low);
            bool full = h < have && is_full(zl_str_n(block + h, ZL_MIN((size_t)HEAD, have - h)));
            if (!last && full && (*left)-- == 0) {
                *ret = next;
                return 1;
            }
            last = false;
            next = start;
        }
        high = low;
    }
    return 0;
}

int zl_log_reader_seek_last(struct zl_log_reader *r, uint64_t lines)
{
    uint64_t left = lines, at = 0;
    int e = open_generation(r, UINT64_MAX - 1); /* the current one */
    while (e == 0) {
        uint64_t g = r->generation;
        int found = scan_back(r->fd, &left, &at);
        if (found < 0)
            return found;
        if (found > 0) {
            zl_log_reader_seek(r, (struct zl_log_cursor){ g, at });
            return 0;
        }
        zl_auto_close int older = g > 1 ? open_ended(r->dir, g - 1) : -ENOENT;
        if (older < 0) {
            zl_log_reader_seek(r, (struct zl_log_cursor){ g, 0 });
            return 0;
        }
        zl_close(r->fd);
        r->fd = ZL_TAKE_FD(older);
        r->generation = g - 1;
    }
    return e == -ENOENT ? 0 : e; /* no log yet: from its beginning */
}

int zl_log_reader_next(struct zl_log_reader *r, struct zl_log_entry *ret)
{
    char events[4096];
    while (r->notify >= 0 && read(r->notify, events, sizeof events) > 0) {
    }
    for (bool over = false;;) {
        size_t n = r->to - r->from;
        const char *end = n ? memchr(r->buf + r->from, '\n', n) : NULL;
        /* No CRI line is as long as the buffer; an unfinished one behind the end is all there will be of it. */
        if (end || n == READ_SIZE || (over && n)) {
            if (take_line(r, end ? (size_t)(end - r->buf) - r->from : n, end ? 1 : 0, ret))
                return 1;
            continue;
        }
        int more = fill(r);
        if (more < 0)
            return more;
        if (more > 0)
            continue;
        if (over) {
            for (unsigned stream = 0; stream < 2; stream++) {
                if (r->parts[stream].text.n) {
                    give(r, ZL_STR(""), stream, ZL_STR(""), true, ret);
                    return 1;
                }
            }
            return 0;
        }
        if (faccessat(r->dir, "exit", F_OK, 0) < 0)
            return 0;
        over = true; /* one more look: the last bytes may have come just before `exit` did */
    }
}

int zl_log_reader_fd(struct zl_log_reader *r)
{
    if (r->notify >= 0)
        return r->notify;
    char path[40];
    zl_auto_close int fd = inotify_init1(IN_CLOEXEC | IN_NONBLOCK);
    if (fd < 0)
        return -errno;
    snprintf(path, sizeof path, "/proc/self/fd/%d", r->dir);
    if (inotify_add_watch(fd, path, IN_MODIFY | IN_MOVED_TO | IN_CREATE | IN_DELETE_SELF | IN_MOVE_SELF) < 0)
        return -errno;
    return r->notify = ZL_TAKE_FD(fd);
}

bool zl_log_reader_ended(struct zl_log_reader *r)
{
    struct stat st;
    if (fstat(r->dir, &st) < 0 || st.st_nlink == 0)
        return true;
    return faccessat(r->dir, "exit", F_OK, 0) == 0 && r->from == r->to && r->parts[0].text.n == 0 &&
           r->parts[1].text.n == 0;
}
