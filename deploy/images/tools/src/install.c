/* The init container's work: the programs of the tools image into the volume that the job's container gets. */
#include "gpudev.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <unistd.h>

static int copy_tree(const char *from, const char *into);

static int copy_file(const char *from, const char *into, const struct stat *status) {
	char beside[4096];
	snprintf(beside, sizeof beside, "%s.new", into);
	int in = open(from, O_RDONLY | O_CLOEXEC);
	int out = open(beside, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0755);
	int result = in < 0 || out < 0 ? -1 : 0;
	for (off_t left = status->st_size; result == 0 && left > 0;) {
		ssize_t done = sendfile(out, in, NULL, (size_t)left);
		if (done <= 0) result = -1;
		left -= done;
	}
	if (result == 0) result = fchmod(out, status->st_mode & 0777);
	if (in >= 0) close(in);
	if (out >= 0 && close(out) != 0) result = -1;
	/* at once, so that a second try never leaves half a program */
	return result == 0 ? rename(beside, into) : -1;
}

static int copy_link(const char *from, const char *into) {
	char target[4096];
	ssize_t length = readlink(from, target, sizeof target - 1);
	if (length < 0) return -1;
	target[length] = '\0';
	unlink(into);
	return symlink(target, into);
}

static int copy_one(const char *from, const char *into) {
	struct stat status;
	if (lstat(from, &status) != 0) return -1;
	if (S_ISDIR(status.st_mode)) return copy_tree(from, into);
	return S_ISLNK(status.st_mode) ? copy_link(from, into) : copy_file(from, into, &status);
}

static int copy_tree(const char *from, const char *into) {
	DIR *directory = opendir(from);
	if (directory == NULL) return -1;
	mkdir(into, 0755);
	int result = 0;
	for (struct dirent *entry; result == 0 && (entry = readdir(directory)) != NULL;) {
		char source[4096], target[4096];
		if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0) continue;
		snprintf(source, sizeof source, "%s/%s", from, entry->d_name);
		snprintf(target, sizeof target, "%s/%s", into, entry->d_name);
		result = copy_one(source, target);
		if (result != 0) fprintf(stderr, "%s -> %s: %m\n", source, target);
	}
	closedir(directory);
	return result;
}

/* The job's container may run as any user, who makes folders of its own here (run.c): the sticky bit keeps the
 * container's other users from putting theirs in place of those, or of the programs. */
static int open_for_all(const char *into) {
	/* a volume of somebody else's is as it is: then nobody here is root */
	return chmod(into, 01777) != 0 && errno != EPERM ? -1 : 0;
}

int install_call(const char *from, const char *into) {
	if (copy_tree(from, into) != 0) return failed("The tools could not be copied from %s to %s: %m", from, into);
	return open_for_all(into) == 0 ? 0 : failed("%s: %m", into);
}
