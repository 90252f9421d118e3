/* Preloaded into a process: syncs fail as long as the file that CONGA_TEST_SYNC_FAILS names is there. As on Linux, what
 * could not be written then counts as written afterwards: a sync would say that all is well. One that relies on that, on
 * the descriptor of Conga's own thread (the only one that is for reading), makes a file of that name and ".betrayed". */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

/* The file of which something is not on the disk. */
static volatile ino_t lost;

/* None for folders. */
static ino_t file_of(int fd) {
    struct stat file;
    return fstat(fd, &file) == 0 && S_ISREG(file.st_mode) ? file.st_ino : 0;
}

static int synced(int fd, long call) {
    const char *fails = getenv("CONGA_TEST_SYNC_FAILS");
    int reads = (fcntl(fd, F_GETFL) & O_ACCMODE) == O_RDONLY;
    if (fails && file_of(fd) && access(fails, F_OK) == 0) {
        if (reads) lost = file_of(fd);
        errno = EIO;
        return -1;
    }
    if (fails && reads && lost && lost == file_of(fd)) {
        char name[4096];
        snprintf(name, sizeof name, "%s.betrayed", fails);
        close(open(name, O_CREAT | O_WRONLY, 0600));
    }
    return syscall(call, fd);
}

int fdatasync(int fd) { return synced(fd, SYS_fdatasync); }
int fsync(int fd) { return synced(fd, SYS_fsync); }

/* Whoever writes the file again from its beginning brings back what was lost. */
ssize_t write(int fd, const void *bytes, size_t count) {
    if (lost && file_of(fd) == lost && lseek(fd, 0, SEEK_CUR) == 0) lost = 0;
    return syscall(SYS_write, fd, bytes, count);
}
