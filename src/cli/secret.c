#include "cli/secret.h"

#include "base/fd.h"

#include <signal.h>
#include <stdio.h>
#include <termios.h>
#include <unistd.h>

static int take_line(char *text, size_t n, char *ret, size_t size, struct zl_err *err)
{
    size_t end = 0;
    while (end < n && text[end] != '\n' && text[end] != '\r')
        end++;
    if (end >= size || memchr(text, 0, end))
        return zl_fail(err, ZL_E_USAGE, "what was read is too long, or binary");
    memcpy(ret, text, end);
    ret[end] = 0;
    return 0;
}

int zl_secret_from_stdin(char *ret, size_t size, struct zl_err *err)
{
    char text[16384];
    ssize_t n = zl_read_full(STDIN_FILENO, text, sizeof text);
    int r = n < 0 ? zl_fail(err, (int)n, "read standard input") : take_line(text, (size_t)n, ret, size, err);
    explicit_bzero(text, sizeof text);
    return r;
}

static struct termios shown; /* how the terminal was, for who is interrupted while it is hidden */

static void restore_and_end(int sig)
{
    (void)tcsetattr(STDIN_FILENO, TCSAFLUSH, &shown);
    (void)signal(sig, SIG_DFL);
    (void)raise(sig);
}

static const int signals[] = { SIGINT, SIGTERM, SIGHUP, SIGQUIT };

static void hide(struct sigaction old[ZL_ARRAY_LEN(signals)])
{
    struct sigaction a = { .sa_handler = restore_and_end };
    struct termios t = shown;
    for (size_t i = 0; i < ZL_ARRAY_LEN(signals); i++)
        (void)sigaction(signals[i], &a, &old[i]);
    t.c_lflag &= ~(tcflag_t)ECHO;
    (void)tcsetattr(STDIN_FILENO, TCSAFLUSH, &t);
}

static void show(const struct sigaction old[ZL_ARRAY_LEN(signals)])
{
    (void)tcsetattr(STDIN_FILENO, TCSAFLUSH, &shown);
    for (size_t i = 0; i < ZL_ARRAY_LEN(signals); i++)
        (void)sigaction(signals[i], &old[i], NULL);
    ZL_IGNORE(write(STDERR_FILENO, "\n", 1)); /* the one that was typed was hidden, too */
}

int zl_secret_ask(const char *prompt, bool hidden, char *ret, size_t size, struct zl_err *err)
{
    struct sigaction old[ZL_ARRAY_LEN(signals)];
    char text[4096];
    ssize_t n;
    if (!isatty(STDIN_FILENO) || tcgetattr(STDIN_FILENO, &shown) < 0)
        return zl_fail(err, ZL_E_USAGE, "there is no terminal to ask on");
    if (hidden)
        hide(old);
    fprintf(stderr, "%s", prompt); /* last: hiding drops what was typed before it */
    do
        n = read(STDIN_FILENO, text, sizeof text);
    while (n < 0 && errno == EINTR);
    if (hidden)
        show(old);
    int r = n < 0    ? zl_fail(err, -errno, "read the terminal")
            : n == 0 ? zl_fail(err, ZL_E_USAGE, "nothing was typed")
                     : take_line(text, (size_t)n, ret, size, err);
    explicit_bzero(text, sizeof text);
    return r;
}
