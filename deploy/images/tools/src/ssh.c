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

/* The public keys of the SSH server, and what dropbearkey says around them. */
int host_keys_call(void) {
	execl(BIN "/dropbearkey", "dropbearkey", "-y", "-f", HOST_KEY, NULL);
	return failed("dropbearkey: %m");
}

/* Whether it sends its banner within so many seconds. */
bool sshd_answers(int seconds) {
	static const char banner[] = "SSH-2.0-";
	char answer[sizeof banner] = "";
	int connection = connect_to(SSH_PORT, seconds);
	if (connection < 0) return false;
	ssize_t got = recv(connection, answer, sizeof banner - 1, MSG_WAITALL);
	close(connection);
	return got == (ssize_t)sizeof banner - 1 && memcmp(answer, banner, sizeof banner - 1) == 0;
}

int ready_call(void) {
	return sshd_answers(3) ? 0 : failed("No SSH server answers on port %d", SSH_PORT);
}
