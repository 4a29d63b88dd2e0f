/* Takes writing to the disk from a program: preloaded, the calls that ZL_UNSYNCED names ("fsync syncfs") succeed and do
 * nothing. So a test of power cuts can show that it sees what such a call is there for. */
#include <dlfcn.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static int call(const char *name, int fd)
{
    const char *taken = getenv("ZL_UNSYNCED");
    int (*real)(int) = NULL;
    if (taken && strstr(taken, name))
        return 0;
    *(void **)&real = dlsym(RTLD_NEXT, name);
    return real(fd);
}

int fsync(int fd)
{
    return call("fsync", fd);
}

int fdatasync(int fd)
{
    return call("fdatasync", fd);
}

int syncfs(int fd)
{
    return call("syncfs", fd);
}
