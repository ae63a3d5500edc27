/* The first process of every pod's sandbox: it keeps the namespaces and buries orphans.
 * Static, because its image holds nothing else. */
#include <signal.h>
#include <unistd.h>

static void leave(int number) {
    (void)number;
    _exit(0);
}

int main(void) {
    struct sigaction bury = {.sa_handler = SIG_IGN, .sa_flags = SA_NOCLDWAIT};
    sigaction(SIGCHLD, &bury, NULL);
    signal(SIGTERM, leave);
    signal(SIGINT, leave);
    for (;;) {
        pause();
    }
}
