/*
 * Replays corpus files through a fuzz target without a fuzzer: `fuzz_x FILE|FOLDER…`. Every file is also given cut at
 * each of a few lengths, so that truncated input is always tried. Prints how many inputs ran; a crash is the failure.
 */
#include <dirent.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static unsigned long inputs;

static int run_file(const char *path)
{
    FILE *f = fopen(path, "rb");
    if (!f) {
        perror(path);
        return -1;
    }
    struct stat st;
    if (fstat(fileno(f), &st) < 0 || st.st_size > (16 << 20)) {
        fclose(f);
        fprintf(stderr, "%s: too large for a corpus file\n", path);
        return -1;
    }
    size_t n = (size_t)st.st_size;
    uint8_t *whole = malloc(n + 1);
    n = whole ? fread(whole, 1, n, f) : 0;
    fclose(f);
    for (int eighth = 0; whole && eighth <= 8; eighth++) {
        /* An exact allocation, so that a read past the end is seen. */
        size_t part = n * (size_t)eighth / 8;
        uint8_t *copy = malloc(part ? part : 1);
        if (!copy)
            abort();
        for (size_t i = 0; i < part; i++)
            copy[i] = whole[i];
        (void)LLVMFuzzerTestOneInput(copy, part);
        free(copy);
        inputs++;
    }
    free(whole);
    return 0;
}

static int run(const char *path)
{
    struct stat st;
    if (stat(path, &st) < 0) {
        perror(path);
        return -1;
    }
    if (!S_ISDIR(st.st_mode))
        return run_file(path);
    DIR *d = opendir(path);
    if (!d)
        return -1;
    int r = 0;
    struct dirent *e;
    while ((e = readdir(d)) != NULL) {
        char name[4096];
        if (e->d_name[0] == '.')
            continue;
        snprintf(name, sizeof name, "%s/%s", path, e->d_name);
        if (run(name) < 0)
            r = -1;
    }
    closedir(d);
    return r;
}

int main(int argc, char **argv)
{
    int r = 0;
    for (int i = 1; i < argc; i++)
        if (run(argv[i]) < 0)
            r = -1;
    printf("%lu inputs\n", inputs);
    return r < 0 || inputs == 0;
}
