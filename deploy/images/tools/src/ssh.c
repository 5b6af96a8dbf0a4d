/* The SSH server's keys and readiness. */
#include "gpudev.h"

#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

int keys_call(void) {
	size_t length;
	char *keys = read_frame(&length);
	if (keys == NULL) return failed("Standard input is no frame: a line with the length, then as many bytes");
	int result = write_file(KEYS, keys, length);
	free(keys);
	return result == 0 ? 0 : failed("%s: %m", KEYS);
}

int ready_call(void) {
	static const char banner[] = "SSH-2.0-";
	char answer[sizeof banner] = "";
	int connection = connect_to(SSH_PORT, 3);
	if (connection < 0) return failed("Nobody listens on port %d", SSH_PORT);
	ssize_t got = recv(connection, answer, sizeof banner - 1, MSG_WAITALL);
	close(connection);
	bool answers = got == (ssize_t)sizeof banner - 1 && memcmp(answer, banner, sizeof banner - 1) == 0;
	return answers ? 0 : failed("No SSH server on port %d", SSH_PORT);
}
