/* A file system without hard links: link(2) fails with the number in LINK_ERRNO. */
#include <errno.h>
#include <stdlib.h>

static int refuse(void) {
    errno = atoi(getenv("LINK_ERRNO"));
    return -1;
}

int link(const char *from, const char *to) { (void)from, (void)to; return refuse(); }

int linkat(int from_dir, const char *from, int to_dir, const char *to, int flags) {
    (void)from_dir, (void)from, (void)to_dir, (void)to, (void)flags;
    return refuse();
}
