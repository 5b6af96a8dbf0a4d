/* The user `dev`: whoever the container runs as. The SSH server's user database (../dropbear/passwd.c) says the same. */
#include "gpudev.h"

#include <unistd.h>

const char *shell_of_dev(void) {
	static const char *const shells[] = {"/bin/bash", "/usr/bin/bash", "/bin/sh", BIN "/sh"};
	size_t last = sizeof shells / sizeof *shells - 1, i = 0;
	while (i < last && access(shells[i], X_OK) != 0) i++;
	return shells[i];
}
