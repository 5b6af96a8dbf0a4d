/* Programs and ports. */
#include "gpudev.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

pid_t start_program(char *const argv[], const char *output) {
	pid_t child = fork();
	if (child != 0) return child;
	sigset_t none;
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	setsid();
	int in = open("/dev/null", O_RDONLY);
	if (in >= 0) dup2(in, 0);
	if (output != NULL) {
		int out = open(output, O_WRONLY | O_CREAT | O_TRUNC, 0600);
		if (out >= 0) {
			dup2(out, 1);
			dup2(out, 2);
		}
	}
	if (chdir(HOME) != 0) (void)!chdir("/");
	execv(argv[0], argv);
	dprintf(2, "%s: %s\n", argv[0], strerror(errno));
	_exit(127);
}

bool find_program(const char *name, char found[], size_t size) {
	const char *path = getenv("PATH");
	if (path == NULL) path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
	while (*path != '\0') {
		size_t length = strcspn(path, ":");
		int wanted = snprintf(found, size, "%.*s/%s", (int)length, path, name);
		if (length > 0 && wanted > 0 && (size_t)wanted < size && access(found, X_OK) == 0) return true;
		path += length + (path[length] == ':');
	}
	return false;
}

int connect_to(int port, int seconds) {
	int connection = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (connection < 0) return -1;
	struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((in_port_t)port)};
	struct timeval limit = {.tv_sec = seconds};
	address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	setsockopt(connection, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
	setsockopt(connection, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit);
	if (connect(connection, (struct sockaddr *)&address, sizeof address) == 0) return connection;
	close(connection);
	return -1;
}
