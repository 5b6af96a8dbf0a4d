#include "gpudev.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static int usage(void) {
	fputs("gpudev install DIR | run [--in DIR] [--list DIR] [--await SECONDS] [-- ARGV...] | ready | keys | host-keys | jupyter start|stop | listing DIR\n", stderr);
	return 2;
}

/* Where the programs of the tools image are: two levels above this very file. */
static int install_from_here(const char *into) {
	char self[4096];
	ssize_t length = readlink("/proc/self/exe", self, sizeof self - 1);
	if (length < 0) return failed("/proc is not there: %m");
	self[length] = '\0';
	for (int level = 0; level < 2; level++) {
		char *slash = strrchr(self, '/');
		if (slash == NULL) return failed("%s is no place to install from", self);
		*slash = '\0';
	}
	return install_call(self, into);
}

/* The options of `gpudev run`, the command behind them. */
static int run_from(char *argv[]) {
	struct run wanted = {0};
	for (; *argv != NULL; argv += 2) {
		if (argv[1] == NULL) return usage();
		if (strcmp(*argv, "--") == 0) {
			wanted.argv = argv + 1;
			break;
		}
		if (strcmp(*argv, "--in") == 0) {
			wanted.directory = argv[1];
		} else if (strcmp(*argv, "--list") == 0) {
			wanted.listed = argv[1];
		} else if (strcmp(*argv, "--await") == 0) {
			wanted.patience_seconds = atoi(argv[1]);
		} else {
			return usage();
		}
	}
	return run_call(&wanted);
}

int main(int argc, char *argv[]) {
	const char *call = argc > 1 ? argv[1] : "";
	if (strcmp(call, "install") == 0 && argc == 3) return install_from_here(argv[2]);
	if (strcmp(call, "run") == 0) return run_from(argv + 2);
	if (strcmp(call, "ready") == 0 && argc == 2) return ready_call();
	if (strcmp(call, "keys") == 0 && argc == 2) return keys_call();
	if (strcmp(call, "host-keys") == 0 && argc == 2) return host_keys_call();
	if (strcmp(call, "listing") == 0 && argc == 3) return listing_call(argv[2]);
	if (strcmp(call, "jupyter") == 0 && argc == 3 && strcmp(argv[2], "start") == 0) return jupyter_start_call();
	if (strcmp(call, "jupyter") == 0 && argc == 3 && strcmp(argv[2], "stop") == 0) return jupyter_stop_call();
	return usage();
}
