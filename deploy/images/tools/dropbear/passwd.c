/* The user database of the SSH server, in place of libc's: one user, `dev`, who is whoever the server runs as.
 *
 * What the command of a job writes belongs to its sessions too, and an image's /etc/passwd is neither read nor written. */
#include <grp.h>
#include <pwd.h>
#include <string.h>
#include <unistd.h>

#include "../src/gpudev.h"

struct passwd *getpwuid(uid_t uid) {
	static struct passwd dev;
	if (uid != getuid()) return NULL;
	dev = (struct passwd){
		.pw_name = "dev",
		.pw_passwd = "!",
		.pw_uid = uid,
		.pw_gid = getgid(),
		.pw_gecos = "",
		.pw_dir = HOME,
		.pw_shell = (char *)shell_of_dev(),
	};
	return &dev;
}

struct passwd *getpwnam(const char *name) {
	return strcmp(name, "dev") == 0 ? getpwuid(getuid()) : NULL;
}

/* Nobody reads the whole list, but libc's object that has these would bring its own of the above along. */
void setpwent(void) {}
void endpwent(void) {}
struct passwd *getpwent(void) { return NULL; }

struct spwd *getspnam(const char *name) {
	(void)name;
	return NULL;
}

/* The shell is one of the above: nothing to look up. */
static int asked;
void setusershell(void) { asked = 0; }
void endusershell(void) {}
char *getusershell(void) { return asked++ ? NULL : (char *)shell_of_dev(); }

/* The groups that the container has are kept. */
int initgroups(const char *user, gid_t group) {
	(void)user;
	(void)group;
	return 0;
}
