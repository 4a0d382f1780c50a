/* folder.h - a directory of its own for the files that a test writes, and reading them back. */
#ifndef FOLDER_H
#define FOLDER_H

#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>
#include "test.h"

static char folder[200];

static void folder_make(void)
{
    const char *parent = getenv("TMPDIR"), *memory = "/dev/shm";           /* there, saving does not wait for a disk */
    struct rlimit most = { 1 << 26, 1 << 26 };
    setrlimit(RLIMIT_FSIZE, &most);                        /* who writes on and on is ended, not the disk; */
    alarm(900);                                            /* and so is who never ends */
    snprintf(folder, sizeof folder, "%.150s/cnn_test_%ld", parent ? parent : !access(memory, W_OK) ? memory : "/tmp", (long)getpid());
    CHECK(!mkdir(folder, 0700), "%s cannot be made", folder);
}

static void folder_remove(void) { CHECK(!rmdir(folder), "%s: something was left in it", folder); }

/* The path of a file in it. Four paths may be in use at a time. */
static const char *in_folder(const char *name)
{
    static char path[4][300];
    static int turn;
    turn = (turn + 1) % 4;
    snprintf(path[turn], sizeof path[turn], "%s/%s", folder, name);
    return path[turn];
}

/* All text of a file, from its start; "" if there is no file. It stays until the next call. */
static inline const char *text_of(FILE *file)
{
    static char text[1 << 21];
    size_t length = 0;
    if (file) {
        rewind(file);
        length = fread(text, 1, sizeof text - 1, file);
        fclose(file);
    }
    text[length] = 0;
    return text;
}

#endif
