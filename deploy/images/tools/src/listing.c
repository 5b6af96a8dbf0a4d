/* What is on a disk: the tree to depth 3 in the order of paths, with the sums below each directory. */
#include "gpudev.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define DEPTH 3
#define MOST_ENTRIES 2000
/* What lies deeper is not counted: each level takes stack and a descriptor. */
#define DEEPEST 200

struct entry {
	char *path;
	const char *type;
	unsigned long long size;
};

struct tree {
	struct entry *entries;
	size_t count, room;
	bool truncated;
};

static const char *type_of(mode_t mode) {
	if (S_ISREG(mode)) return "file";
	if (S_ISDIR(mode)) return "directory";
	return S_ISLNK(mode) ? "link" : "other";
}

static size_t add_entry(struct tree *tree, const char *path, const char *type) {
	if (tree->count == tree->room) {
		tree->room = tree->room * 2 + 64;
		tree->entries = realloc(tree->entries, tree->room * sizeof *tree->entries);
		if (tree->entries == NULL) exit(failed("out of memory"));
	}
	tree->entries[tree->count] = (struct entry){.path = strdup(path), .type = type};
	return tree->count++;
}

/* By bytes, not by the locale: the same tree gives the same list everywhere. */
static int by_bytes(const void *a, const void *b) {
	return strcmp(*(char *const *)a, *(char *const *)b);
}

/* The names in a directory, in order; the caller frees them all. */
static char **names_in(int directory, size_t *count) {
	char **names = NULL;
	size_t room = 0;
	*count = 0;
	DIR *stream = fdopendir(dup(directory));
	for (struct dirent *entry; stream != NULL && (entry = readdir(stream)) != NULL;) {
		if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0) continue;
		if (*count == room) {
			room = room * 2 + 64;
			names = realloc(names, room * sizeof *names);
			if (names == NULL) exit(failed("out of memory"));
		}
		names[(*count)++] = strdup(entry->d_name);
	}
	if (stream != NULL) closedir(stream);
	if (*count > 0) qsort(names, *count, sizeof *names, by_bytes);
	return names;
}

/* Walk a directory that is open and add its entries; the sum of its files. Names are looked up from the open directory,
 * so that a tree that changes meanwhile leads nowhere else. */
static unsigned long long walk(struct tree *tree, int directory, const char *prefix, int depth, dev_t device) {
	unsigned long long sum = 0;
	size_t count;
	if (depth > DEEPEST) {
		tree->truncated = true;
		return 0;
	}
	char **names = names_in(directory, &count);
	for (size_t i = 0; i < count; i++) {
		char path[4096];
		struct stat status;
		int length = snprintf(path, sizeof path, "%s%s", prefix, names[i]);
		if (length > 0 && (size_t)length < sizeof path - 1 &&
		    fstatat(directory, names[i], &status, AT_SYMLINK_NOFOLLOW) == 0) {
			bool shown = depth <= DEPTH && tree->count < MOST_ENTRIES;
			size_t number = shown ? add_entry(tree, path, type_of(status.st_mode)) : 0;
			unsigned long long size = S_ISREG(status.st_mode) ? (unsigned long long)status.st_size : 0;
			if (S_ISDIR(status.st_mode) && status.st_dev == device) {
				int below = openat(directory, names[i], O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
				strcat(path, "/");
				if (below >= 0) {
					size = walk(tree, below, path, depth + 1, device);
					close(below);
				}
			}
			if (shown) tree->entries[number].size = size;
			else if (depth <= DEPTH) tree->truncated = true;
			sum += size;
		}
		free(names[i]);
	}
	free(names);
	return sum;
}

/* As JSON with the first `count` entries. */
static char *document(const struct tree *tree, unsigned long long sum, size_t count) {
	struct text text = {0};
	text_add(&text, "{\"size_bytes\": %llu, \"entries\": [", sum);
	for (size_t i = 0; i < count; i++) {
		text_add(&text, "%s{\"path\": ", i ? ", " : "");
		text_add_json(&text, tree->entries[i].path);
		text_add(&text, ", \"type\": \"%s\", \"size_bytes\": %llu}", tree->entries[i].type, tree->entries[i].size);
	}
	text_add(&text, "], \"truncated\": %s}", tree->truncated || count < tree->count ? "true" : "false");
	return text.bytes;
}

char *listing_of(const char *directory, size_t most) {
	struct tree tree = {0};
	struct stat status;
	int top = open(directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (top < 0 || fstat(top, &status) != 0) return NULL;
	unsigned long long sum = walk(&tree, top, "", 1, status.st_dev);
	close(top);
	size_t count = tree.count;
	char *text = document(&tree, sum, count);
	while (most > 0 && strlen(text) > most && count > 0) {
		free(text);
		count /= 2;
		text = document(&tree, sum, count);
	}
	for (size_t i = 0; i < tree.count; i++) free(tree.entries[i].path);
	free(tree.entries);
	return text;
}

int listing_call(const char *directory) {
	char *text = listing_of(directory, 0);
	if (text == NULL) return failed("%s: %m", directory);
	int result = write_all(1, text, strlen(text));
	free(text);
	return result == 0 ? 0 : failed("standard output: %m");
}
